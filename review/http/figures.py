"""Figures for Prometheus: counted as answers go out, or read from the house when asked for. Must not know keys or routes."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

if TYPE_CHECKING:
    from review.services.house import House

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 30, 60, 120)


class Figures:
    """Of one running app; another app in the same process has its own."""

    def __init__(self, house: "House") -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "tiebreak_requests", "Answers asked for over HTTP, by arm and HTTP status (499: the client left).", ["arm", "status"],
            registry=self._registry,
        )  # fmt: skip
        self._tokens = Counter("tiebreak_tokens", "Tokens read and written over HTTP.", ["arm", "kind"], registry=self._registry)
        self._first = Histogram(
            "tiebreak_first_token_seconds", "From a request to its first token.", buckets=SECONDS, registry=self._registry
        )
        self._registry.register(_OfTheHouse(house))

    def answered(self, arm: str, status: int, prompt_tokens: int, new_tokens: int) -> None:
        """One request is over. `arm` is "" where none was found, so that nobody can fill the memory with names."""
        self._requests.labels(arm, str(status)).inc()
        if prompt_tokens or new_tokens:
            self._tokens.labels(arm, "prompt").inc(prompt_tokens)
            self._tokens.labels(arm, "completion").inc(new_tokens)

    def first_token(self, seconds: float) -> None:
        self._first.observe(seconds)

    def text(self) -> bytes:
        """All of them in Prometheus' text format."""
        return generate_latest(self._registry)


class _OfTheHouse:
    """Read when scraped."""

    def __init__(self, house: "House") -> None:
        self._house = house

    def collect(self) -> Iterator[Metric]:
        engine = self._house.engine
        activity = engine.activity()
        rows = GaugeMetricFamily("tiebreak_rows", "Rows of the engine: waiting to join, and under way.", labels=["state"])
        rows.add_metric(["waiting"], activity.waiting)
        rows.add_metric(["running"], activity.running)
        yield rows
        yield GaugeMetricFamily("tiebreak_model_ready", "1 when the model answers.", float(engine.status().state == "ready"))
        yield GaugeMetricFamily("tiebreak_adapters_resident", "Adapters in the engine's memory.", len(engine.adapters()))
        counts = self._house.upkeep.counts()
        yield CounterMetricFamily("tiebreak_votes", "Votes stored, revisions included.", counts.votes)
        jobs = GaugeMetricFamily("tiebreak_jobs", "Background jobs by state.", labels=["state"])
        for state, number in sorted(counts.jobs.items()):
            jobs.add_metric([state], number)
        yield jobs
