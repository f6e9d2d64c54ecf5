"""On Ray as in one process: the same bytes, whatever dies."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from pipeline.executor import LocalExecutor
from pipeline.ray_executor import RayExecutor
from pipeline.run import Run
from pipeline.stage import Stage
from tests.jobs.toy_driver import Noting
from tests.toys import Deadly, Numbers, Roots, Shared, Squares, Total, everything_in, left_in, toy_stages

pytestmark = pytest.mark.usefixtures("ray_cluster")


def quiet_root(folder: Path, shards: int = 6) -> str:
    Run(str(folder), toy_stages(shards)).execute(LocalExecutor())
    return str(folder)


def test_both_engines_give_the_same_bytes(tmp_path: Path) -> None:
    assert Run(str(tmp_path / "ray"), toy_stages()).execute(RayExecutor()).exit_code == 0
    assert everything_in(str(tmp_path / "ray")) == everything_in(quiet_root(tmp_path / "local"))


def test_a_worker_killed_once_costs_nothing(tmp_path: Path) -> None:
    bad = tmp_path / "kills"
    bad.touch()

    class Spares(RayExecutor):
        def wait(self):  # type: ignore[no-untyped-def]
            outcomes = super().wait()
            if any(type(outcome).__name__ == "Died" for outcome in outcomes):
                bad.unlink(missing_ok=True)
            return outcomes

    stages = [Numbers(6), Squares(bad_shard="000002", fault="die", while_exists=str(bad)), Total()]
    report = Run(str(tmp_path / "ray"), stages).execute(Spares())  # type: ignore[arg-type]
    assert report.exit_code == 0
    assert not bad.exists()
    assert everything_in(str(tmp_path / "ray")) == everything_in(quiet_root(tmp_path / "local"))


@pytest.mark.parametrize(
    ("stages", "bad", "told"),
    [
        (
            [Numbers(6), Squares(bad_shard="000002", fault="die")],
            "squares",
            "ActorDiedError: .*worker process has died",
        ),
        ([Deadly(6, bad_shard="000002"), Squares()], "numbers", "WorkerCrashedError: The worker died unexpectedly"),
    ],
    ids=["actor", "task"],
)
def test_a_shard_that_always_kills_its_worker_is_blamed_three_times_and_left_out_alone(
    stages: list[Stage[Any]], bad: str, told: str, tmp_path: Path
) -> None:
    executor = Noting()
    report = Run(str(tmp_path), stages).execute(executor)
    blamed = [death for death in executor.deaths if death["counted"]]
    assert [death["name"] for death in blamed] == [f"{bad}:000002"] * 3
    assert all(re.match(told, death["cause"]) for death in blamed)
    assert list(report.failed) == [(bad, "000002")]
    assert len(list((tmp_path / bad / "commits").glob("*.json"))) == 5


def test_an_accepted_shard_leaves_what_it_leaves_in_one_process(tmp_path: Path) -> None:
    def stages(fault: str) -> list[Stage[Any]]:
        return [Numbers(6), Squares(bad_shard="000002", fault=fault), Roots(), Total()]

    ray, local = tmp_path / "ray", tmp_path / "local"
    assert Run(str(ray), stages("die"), accept_failed=True).execute(RayExecutor()).exit_code == 0
    assert Run(str(local), stages("raise"), accept_failed=True).execute(LocalExecutor()).exit_code == 0
    names = ("numbers", "squares", "roots", "total")
    assert everything_in(str(ray), names) == everything_in(str(local), names)
    assert left_in(ray) == left_in(local)
    lost = [pl.read_parquet(root / "squares/rejects/*.parquet")["pair_id", "reason"] for root in (ray, local)]
    assert lost[0].height > 0
    assert lost[0].equals(lost[1])


def test_a_shard_that_raises_is_named_with_its_cause(tmp_path: Path) -> None:
    stages: list[Stage[Any]] = [Numbers(3), Squares(bad_shard="000001", fault="raise")]
    report = Run(str(tmp_path), stages).execute(RayExecutor())
    assert "squares shard 000001 failed: ValueError: shard 000001 is not to my taste" in str(report)


def test_a_driver_killed_in_the_middle_is_continued(tmp_path: Path) -> None:
    root = tmp_path / "ray"
    code = (
        "from pipeline.run import Run; from pipeline import ray_executor as r; from tests.toys import toy_stages;"
        f"r.connect(2); Run({str(root)!r}, toy_stages(200)).execute(r.RayExecutor())"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    driver = subprocess.Popen([sys.executable, "-c", code], env=environment, start_new_session=True)
    commits = root / "squares" / "commits"
    try:
        while len(list(commits.glob("*.json"))) < 20:
            assert driver.poll() is None, "the driver ended before it could be killed"
            time.sleep(0.05)
    finally:
        driver.send_signal(signal.SIGKILL)
        driver.wait()
    assert Run(str(root), toy_stages(200)).execute(LocalExecutor()).exit_code == 0
    assert everything_in(str(root)) == everything_in(quiet_root(tmp_path / "local", 200))


@pytest.mark.slow
def test_a_machine_smaller_than_what_stages_ask_for_is_enough(tmp_path: Path) -> None:
    root = tmp_path / "ray"
    code = (
        "from pipeline.run import Run; from pipeline.ray_executor import RayExecutor;"
        "from tests.toys import toy_stages;"
        f"raise SystemExit(Run({str(root)!r}, toy_stages(cpus=3)).execute(RayExecutor(cpus=1)).exit_code)"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    assert subprocess.run([sys.executable, "-c", code], env=environment, timeout=120, check=False).returncode == 0
    assert everything_in(str(root)) == everything_in(quiet_root(tmp_path / "local"))


def test_shards_at_work_are_told_different_shares_and_no_more_are_handed_out_than_there_are(tmp_path: Path) -> None:
    class Watching(RayExecutor):
        most = 0

        def wait(self):  # type: ignore[no-untyped-def]
            shares = [flying.share for flying in self._flying.values() if flying.call.job.stage.name == "numbers"]
            assert len({share.number for share in shares}) == len(shares)
            assert all(share.number < share.of == 3 for share in shares)
            self.most = max(self.most, len(shares))
            return super().wait()

    executor = Watching()
    assert Run(str(tmp_path), [Shared(9)]).execute(executor).exit_code == 0
    assert executor.most == 3
