# The two commands: `make run` sets everything up and starts the app; `make test` sets everything up and runs the whole suite.
.PHONY: run test check bench demo clean

run:
	@./.ci/setup run
	@.venv/bin/tiebreak serve

test:
	@./.ci/setup test
	@.venv/bin/python -m pytest $(ARGS)

check:
	@./.ci/setup test
	@.venv/bin/ruff check .
	@.venv/bin/mypy

bench:
	@./.ci/setup test
	@.venv/bin/python -m bench

demo:
	@./.ci/setup test
	@.venv/bin/python -m demo.make

clean:
	rm -rf .venv build *.egg-info
