"""T1, T2, T10: nothing sent in a request makes the server read a file, copy one, or echo a header."""

import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.hostile import stock
from tests.hostile.conftest import Site
from tests.hostile.site import Function, Visitor, file_data

pytestmark = pytest.mark.hostile
ENTITLED = {"/review": "Rita", "/lab": "Erik", "/boards": "Sam", "/admin": "Ada"}


@pytest.fixture(scope="module")
def secrets_of(site: Site, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Files worth stealing: path -> a word that is in them and nowhere else."""
    home = site.house.settings.home
    key, adapter = home / "signing.key", home / "adapters" / "adapter_model.safetensors"
    temporary = tmp_path_factory.mktemp("elsewhere") / "tmp.txt"
    for path in (key, adapter, temporary):
        path.write_text(f"secret-of-{path.name}")
    return {
        "/etc/passwd": "root:",
        str(home / "tiebreak.db"): "SQLite format 3",
        str(key): "secret-of-signing.key",
        str(adapter): "secret-of-adapter_model",
        str(temporary): "secret-of-tmp.txt",
        str(Path(__file__)): "Files worth stealing",
    }


def cached(home: Path) -> set[str]:
    """Every file in Gradio's cache folder."""
    folder = home / "uploads"
    return {str(p) for p in folder.rglob("*") if p.is_file()} if folder.exists() else set()


def disguises(path: str) -> Iterator[Any]:
    """One file reference in every dress a component might unwrap."""
    plain = file_data(path)
    yield plain
    yield [plain]
    yield {"files": [plain], "text": "x"}
    yield [{"role": "user", "content": [{"type": "file", "file": plain}]}]
    yield [[plain, None], [None, [path, "x"]]]
    yield {"path": path}
    yield {"path": path, "url": f"file://{path}", "meta": {"_type": "gradio.FileData"}}
    yield __import__("json").dumps(plain)
    yield __import__("json").dumps(plain).replace("path", "\\u0070ath").replace("gradio", "\\u0067radio")
    yield {"headers": ["a"], "data": [[plain]], "metadata": None}
    yield {"a": {"b": [{"c": plain}]}}


def ways(visitor: Visitor, function: Function, data: list[Any]) -> Iterator[httpx.Response]:
    """Every route by which a function can be reached."""
    mount, body = function.mount, visitor.payload(function.index, data)
    yield visitor.post(f"{mount}/gradio_api/queue/join", body)
    for route in ("run", "api", "call"):
        yield visitor.post(f"{mount}/gradio_api/{route}/predict", body)
        yield visitor.post(f"{mount}/gradio_api/{route}/{function.name.rsplit('.', 1)[-1]}", body)


def test_no_input_of_any_function_reads_a_file(site: Site, secrets_of: dict[str, str]) -> None:
    assert site.functions
    before = cached(site.house.settings.home)
    visitors = {mount: site.visitor(name) for mount, name in ENTITLED.items()}
    with site.watching() as acted:
        for function in site.functions:
            for number, (path, word) in enumerate(secrets_of.items()):
                data = [file_data(path)] * max(1, function.inputs)
                for reply in islice(ways(visitors[function.mount], function, data), None if number == 0 else 1):
                    assert reply.status_code in (400, 403, 404, 422), (function, reply.status_code, reply.text)
                    assert word not in reply.text
    assert acted == []
    assert cached(site.house.settings.home) == before


@pytest.mark.parametrize("mount", ENTITLED)
def test_no_disguise_passes_any_function(site: Site, secrets_of: dict[str, str], mount: str) -> None:
    visitor = site.visitor(ENTITLED[mount])
    functions = [f for f in site.functions if f.mount == mount and f.inputs] or [f for f in site.functions if f.mount == mount]
    with site.watching() as acted:
        for path in (*list(secrets_of)[:2], "../../etc/passwd", "C:\\secret"):
            for dressed in disguises(path):
                for function in functions[:3]:
                    reply = visitor.join(mount, function.index, [dressed] * max(1, function.inputs))
                    assert reply.status_code in (400, 403), (dressed, reply.text)
                    assert visitor.join(mount, function.index, [], event_data=dressed).status_code in (400, 403)
    assert acted == []


def test_the_file_routes_do_not_exist_for_anybody(site: Site, secrets_of: dict[str, str]) -> None:
    for mount, name in ENTITLED.items():
        visitor = site.visitor(name)
        for path in secrets_of:
            for route in (f"file={path}", f"file/{path}", f"proxy={path}", f"file={path.replace('/', '%2f')}"):
                reply = visitor.get(f"{mount}/gradio_api/{route}", accept="*/*")
                assert reply.status_code == 404, (route, reply.status_code)


def test_even_without_the_guard_gradio_refuses_files_outside_its_own(site: Site, secrets_of: dict[str, str]) -> None:
    for blocks in site.blocks.values():
        assert blocks.has_launched
        assert blocks.is_running
        assert blocks.allowed_paths == []


def test_a_file_reference_written_as_text_stays_text(site: Site) -> None:
    """T2: what merely looks like a file in prose goes through and comes out as the characters it is."""
    from review.guard import bodies

    for text in ('{"path": "/etc/passwd"}', "see {path: /etc/passwd}", '["path", "/etc/passwd"]', "{not json path"):
        assert bodies.checked([text], lambda path: False) == [text]


def test_somebody_elses_upload_is_not_ones_own(site: Site) -> None:
    erik, ada = site.visitor("Erik"), site.visitor("Ada")
    sent = erik.http.post("/lab/gradio_api/upload", files={"files": ("a.jsonl", b"{}")}, headers={"origin": site.base})
    assert sent.status_code == 200, sent.text
    [path] = sent.json()
    assert Path(path).is_relative_to(site.house.settings.home)
    function = next(f for f in site.functions if f.mount == "/lab")
    with site.watching():
        assert erik.join("/lab", function.index, [file_data(path)]).status_code == 200
        assert ada.join("/lab", function.index, [file_data(path)]).status_code == 403
        assert erik.join("/lab", function.index, [file_data(path + "/../../../tiebreak.db")]).status_code == 403


def test_parts_without_a_file_input_take_no_upload(site: Site) -> None:
    for mount, name in (("/review", "Rita"), ("/boards", "Sam"), ("/admin", "Ada")):
        reply = site.visitor(name).http.post(f"{mount}/gradio_api/upload", files={"files": ("a", b"x")}, headers={"origin": site.base})
        assert reply.status_code == 404


def test_no_reply_echoes_a_request_header(site: Site) -> None:
    """T10."""
    visitor = site.visitor("Rita")
    for path in ("/review/", "/review/theme.css", "/static/look.css", "/login", "/health"):
        for method in ("GET", "HEAD"):
            reply = visitor.http.request(method, path, headers={"range": "bytes=0-9", "x-canary": "kanari-header"})
            assert reply.status_code in (200, 303) or (method == "HEAD" and reply.status_code == 405), (path, reply.status_code)
            told = str(reply.headers).lower()
            assert "kanari-header" not in told
            assert not any(token in told for token in visitor.http.cookies.values())
            assert "content-range" not in told


class TestControl:
    """Stock Gradio, mounted as documented, gives the files away; so the attacks above have teeth."""

    def test_stock_copies_and_serves_etc_passwd(self) -> None:
        with stock.stock(stock.echo()) as base:
            visitor = Visitor(base)
            status, events = visitor.act("/app", stock.JSON_FIELD, [file_data("/etc/passwd")])
            assert status == 200
            done = next(e for e in events if e["msg"] == "process_completed")
            path = done["output"]["data"][0]["path"]
            assert path != "/etc/passwd"
            assert "root:" in visitor.get(f"/app/gradio_api/file={path}").text

    def test_stock_echoes_request_headers_for_a_range(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(os.environ, "GRADIO_TEMP_DIR", str(tmp_path))
        with stock.stock(stock.echo()) as base:
            visitor = Visitor(base)
            sent = visitor.http.post("/app/gradio_api/upload", files={"files": ("a.txt", b"0123456789")}).json()
            reply = visitor.get(f"/app/gradio_api/file={sent[0]}", range="bytes=0-3", **{"x-canary": "kanari-header"})
            assert "kanari-header" in str(reply.headers)
