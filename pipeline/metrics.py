"""Numbers of a running job for Prometheus: counted in the driver, served by Ray's metrics exporter.

Ray puts `ray_` before each name and `_total` behind a counter's, and takes each second of the histogram as the middle
of its bucket. Numbers start at 0 with each driver, and stay visible on its node after it has ended.
"""

from ray.util.metrics import Counter, Gauge, Histogram

from pipeline.commits import CommitRecord
from pipeline.executor import Died, Done, Outcome

SECONDS = [1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0, 10000.0]


class Metrics:
    def __init__(self) -> None:
        self._in_flight = Gauge("revilm_shards_in_flight", "Submitted and not ended", ("stage",))
        self._ended = Counter(
            "revilm_shards",
            "By outcome: committed; raised; died, which counts against the shard; lost, which does not",
            ("stage", "outcome"),
        )
        self._seconds = Histogram("revilm_shard_seconds", "To make a committed shard", SECONDS, ("stage",))
        self._rows_in = Counter("revilm_rows_in", "Of committed shards", ("stage",))
        self._rows_out = Counter("revilm_rows_out", "Of committed shards: the rows kept", ("stage",))
        self._rejects = Counter("revilm_rejects", "Of committed shards: the rows that left", ("stage", "reason"))

    def in_flight(self, stage: str, shards: int) -> None:
        self._in_flight.set(shards, {"stage": stage})

    def ended(self, outcome: Outcome) -> None:
        stage = outcome.call.job.stage.name
        self._ended.inc(1, {"stage": stage, "outcome": _kind(outcome)})
        if isinstance(outcome, Done):
            self._seconds.observe(outcome.record.seconds, {"stage": stage})
            self._add_rows(outcome.record)

    def _add_rows(self, record: CommitRecord) -> None:
        amounts: list[tuple[Counter, int, dict[str, str]]]
        amounts = [(self._rows_in, record.rows_in, {}), (self._rows_out, record.rows_out, {})]
        amounts += [(self._rejects, rows, {"reason": reason}) for reason, rows in record.rejects.items()]
        for counter, rows, tags in amounts:
            if rows:  # Ray refuses to add 0
                counter.inc(rows, {"stage": record.stage} | tags)


def _kind(outcome: Outcome) -> str:
    match outcome:
        case Done():
            return "committed"
        case Died(counted=counted):
            return "died" if counted else "lost"
        case _:
            return "raised"
