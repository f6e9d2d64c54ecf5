"""What a person watches while a model trains: on a terminal, in TensorBoard, and as lines of JSON.

A run tells every update and every evaluation to each of its watchers; which figures an update has is Step's.
"""

import json
import logging
import sys
import time
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Protocol, TextIO

from model.files import replacing
from pipeline.progress import clock

EVERY_S = 10.0  # of a line in a job's log
FRAME_S = 0.25  # of the view on a terminal
RECENT = 50  # updates that speeds are means of
log = logging.getLogger("training")


@dataclass(frozen=True, kw_only=True)
class Step:
    """One update of the weights."""

    update: int  # from 1
    updates: int  # of the whole run
    losses: Mapping[str, float]  # of every source, nats a token
    learning_rate: float
    gradient_norm: float  # before it is clipped
    seconds: Mapping[str, float]  # what it went to: wait (for data), compute, step (of the optimiser)
    samples: int
    tokens: int  # without padding
    padding: float  # share of the positions
    skipped: Mapping[str, int]  # reason → samples
    flops: int = 0  # useful ones, by model.flops
    mfu: float | None = None  # useful FLOPs ÷ (peak × time); None where the peak is not known
    memory_gib: float  # the largest so far
    gates: Mapping[str, tuple[float, float]] = field(default_factory=dict)  # layer → tanh of both gates; mostly empty

    @property
    def total_s(self) -> float:
        return sum(self.seconds.values())


class Watcher(Protocol):
    def step(self, step: Step) -> None: ...

    def evaluated(self, update: int, figures: Mapping[str, float]) -> None: ...

    def close(self) -> None: ...


class TerminalView:
    """Live where the stream is a terminal; else lines of the log, one every ten seconds and one of the last update."""

    def __init__(self, stream: TextIO = sys.stderr, *, every_s: float = EVERY_S) -> None:
        self._recent: deque[Step] = deque(maxlen=RECENT)
        self._every_s, self._next = every_s, time.monotonic()
        self._news: dict[str, str] = {}
        self._live = None
        if stream.isatty():
            from rich.console import Console
            from rich.live import Live

            # Drawn by the loop itself: a thread of its own would read what the loop changes.
            self._live = Live(console=Console(file=stream), auto_refresh=False)
            self._live.start()
            self._every_s = FRAME_S

    def step(self, step: Step) -> None:
        self._recent.append(step)
        if step.gates:
            self._news["gates"] = " · ".join(f"{layer}: {a:+.3f} {d:+.3f}" for layer, (a, d) in step.gates.items())
        now = time.monotonic()
        if now >= self._next or step.update == step.updates:
            self._next = now + self._every_s
            self._show()

    def evaluated(self, update: int, figures: Mapping[str, float]) -> None:
        told = " · ".join(f"{name} {value:.4g}" for name, value in figures.items())
        self._news["evaluation"] = f"at update {update:,}: {told}"
        if self._live is None:
            log.info("evaluation %s", self._news["evaluation"])

    def close(self) -> None:
        if self._live:
            self._show()
            self._live.stop()

    def _show(self) -> None:
        lines = list(lines_on(self._recent)) if self._recent else []
        if self._live is None:
            log.info("%s", " · ".join(lines))
            return
        from rich.text import Text

        lines += [f"{what} {news}" for what, news in self._news.items()]
        self._live.update(Text("\n".join(lines)), refresh=True)


def lines_on(recent: "deque[Step]") -> Iterator[str]:
    """Lines on the newest update; speeds are means over the recent ones, without what happened between updates."""
    step = recent[-1]
    total_s = sum(each.total_s for each in recent)
    left_s = total_s / len(recent) * (step.updates - step.update)
    yield f"update {step.update:,}/{step.updates:,} · ETA {clock(left_s)}"
    yield " · ".join(f"loss {source} {loss:.4f}" for source, loss in step.losses.items())
    skipped = ", ".join(f"{count:,} {reason}" for reason, count in step.skipped.items()) or "none"
    yield f"rate {step.learning_rate:.2e} · gradient norm {step.gradient_norm:.3g} · skipped {skipped}"
    speeds = [
        f"{sum(getattr(each, unit) for each in recent) / total_s:,.0f} {unit}/s" for unit in ("samples", "tokens")
    ]
    yield f"{' · '.join(speeds)} · padding {step.padding:.0%}"
    shares = [f"{part} {sum(each.seconds.get(part, 0.0) for each in recent) / total_s:.1%}" for part in step.seconds]
    yield f"{total_s / len(recent):.3f} s an update: {' · '.join(shares)}"
    mfu = "" if step.mfu is None else f"MFU {step.mfu:.1%} · "
    yield f"{mfu}memory {step.memory_gib:.1f} GiB"


class TensorBoard:
    """Event files in a folder, as `tensorboard --logdir` reads them."""

    def __init__(self, folder: str | Path, *, first_update: int = 1) -> None:
        """first_update: what an earlier run wrote of this update and later ones is hidden."""
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder), purge_step=first_update)

    def step(self, step: Step) -> None:
        scalars = {
            "rate": step.learning_rate,
            "gradient norm": step.gradient_norm,
            "samples a second": step.samples / step.total_s,
            "tokens a second": step.tokens / step.total_s,
            "padding": step.padding,
            "skipped": sum(step.skipped.values()),
            "memory GiB": step.memory_gib,
        }
        if step.mfu is not None:
            scalars["MFU"] = step.mfu
        scalars |= {f"loss/{source}": loss for source, loss in step.losses.items()}
        scalars |= {f"seconds/{part}": seconds for part, seconds in step.seconds.items()}
        for layer, (attention, dense) in step.gates.items():
            scalars |= {f"attention gate/{layer}": attention, f"dense gate/{layer}": dense}
        self._add(step.update, scalars)

    def evaluated(self, update: int, figures: Mapping[str, float]) -> None:
        self._add(update, {f"evaluation/{name}": value for name, value in figures.items()})
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()

    def _add(self, update: int, scalars: Mapping[str, float]) -> None:
        for name, value in scalars.items():
            self._writer.add_scalar(name, value, update)


class JsonLines:
    """A JSON object a line, of an update all fields of Step, of an evaluation `update` and `evaluation`; what is
    written is whole at once, so that others can read along."""

    def __init__(self, path: str | Path, *, first_update: int = 1) -> None:
        """first_update: lines of this update and later ones go, as does a last line that a kill has cut."""
        path = Path(path)
        if path.exists():
            lines = path.read_bytes().splitlines(keepends=True)
            kept = [line for line in lines if line.endswith(b"\n") and json.loads(line)["update"] < first_update]
            with replacing(path) as scratch:
                scratch.write_bytes(b"".join(kept))
        self._file = path.open("a", encoding="utf-8")

    def step(self, step: Step) -> None:
        self._write(asdict(step))

    def evaluated(self, update: int, figures: Mapping[str, float]) -> None:
        self._write({"update": update, "evaluation": dict(figures)})

    def close(self) -> None:
        self._file.close()

    def _write(self, line: Mapping[str, object]) -> None:
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()
