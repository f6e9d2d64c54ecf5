"""What Prometheus is told of the service: counted in the one process that all requests pass, from its start."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SECONDS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)


class Meters:
    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "revilm_requests", "Answered, by route and status", ("route", "status"), registry=self._registry
        )
        self._seconds = Histogram(
            "revilm_request_seconds",
            "From a request's head to its answer",
            ("route",),
            registry=self._registry,
            buckets=SECONDS,
        )
        self._parts = Histogram(
            "revilm_caption_seconds",
            "A caption's share of its batch, by part",
            ("part",),
            registry=self._registry,
            buckets=SECONDS,
        )
        self._held = Gauge("revilm_requests_held", "At work or waiting for it", registry=self._registry)

    @contextmanager
    def held(self) -> Iterator[None]:
        with self._held.track_inprogress():
            yield

    def answered(self, route: str, status: int, since: float) -> None:
        """since: of time.perf_counter."""
        self._requests.labels(route, status).inc()
        self._seconds.labels(route).observe(time.perf_counter() - since)

    def captioned(self, seconds: Mapping[str, float]) -> None:
        for part, took in seconds.items():
            self._parts.labels(part).observe(took)

    def text(self) -> bytes:
        """In Prometheus' format, version 0.0.4."""
        return generate_latest(self._registry)
