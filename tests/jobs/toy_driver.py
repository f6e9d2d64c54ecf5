"""A driver in a process of its own: toy shards that take a while, and a note of every death that the executor returns.

python -m tests.jobs.toy_driver ROOT DEATHS SHARDS [SQUARES]

DEATHS is the JSON file that is written, SQUARES what SlowSquares is made with, as JSON.
"""

import json
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.executor import Died, Outcome
from pipeline.progress import show_progress
from pipeline.ray_executor import RayExecutor
from pipeline.run import Run
from pipeline.stage import Counts, Resources, Stage
from pipeline.writer import ShardWriter, Task
from tests.toys import Numbers, Squares, Total

WORK_S = 0.2


class SlowNumbers(Numbers):
    def process(self, task: Task, out: ShardWriter, state: None) -> Counts:
        time.sleep(WORK_S)
        return super().process(task, out, state)


@dataclass(frozen=True)
class SlowSquares(Squares):
    workers: int | None = None

    @property
    def resources(self) -> Resources:
        return Resources(cpus=self.cpus, workers=self.workers)

    def process(self, task: Task, out: ShardWriter, state: int) -> Counts:
        time.sleep(WORK_S)
        return super().process(task, out, state)


@dataclass
class Noting(RayExecutor):
    deaths: list[dict[str, Any]] = field(default_factory=list)

    def wait(self) -> list[Outcome]:
        outcomes = super().wait()
        died = [outcome for outcome in outcomes if isinstance(outcome, Died)]
        self.deaths += [{"name": d.call.name, "counted": d.counted, "cause": d.cause} for d in died]
        return outcomes


def main(root: str, deaths: str, shards: str, squares: str = "{}") -> int:
    stages: list[Stage[Any]] = [SlowNumbers(int(shards)), SlowSquares(**json.loads(squares)), Total()]
    executor = Noting()
    report = Run(root, stages).execute(executor)
    Path(deaths).write_text(json.dumps(executor.deaths))
    return report.exit_code


if __name__ == "__main__":
    show_progress()
    sys.exit(main(*sys.argv[1:]))
