"""A full disk is told apart from every other fault, however a library says it, and no shard is blamed for it.

/dev/full is always full, and takes no harm as long as what is written to is a link: some libraries replace the file.
"""

import errno
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.disk import full_disk_told
from pipeline.errors import InputError, StorageError
from pipeline.executor import LocalExecutor
from pipeline.run import Run
from pipeline.stage import Counts
from pipeline.writer import ShardWriter, Task
from tests.toys import Numbers, Squares, Total, everything_in, left_in, toy_stages

FULL = Path("/dev/full")
NO_ROOM = Path("/proc")  # a file system without a free byte
VECTORS = np.random.default_rng(0).random((50_000, 8), dtype=np.float32)

pytestmark = pytest.mark.skipif(not FULL.exists(), reason="no /dev/full on this system")


@pytest.fixture
def full(tmp_path: Path) -> Path:
    path = tmp_path / "full"
    path.symlink_to(FULL)
    return path


def a_text(full: Path) -> None:
    full.write_text("a record")


def a_table(full: Path) -> None:
    pq.write_table(pa.table({"n": range(1000)}), full)


def an_array(full: Path) -> None:
    with full.open("wb") as file:
        np.save(file, VECTORS)


def an_index(full: Path) -> None:
    index = faiss.IndexFlatIP(VECTORS.shape[1])
    index.add(VECTORS)
    faiss.write_index(index, str(full))


def half_an_array(full: Path) -> None:
    """What np.save meets behind the header: an OSError without a number, that names no cause."""
    with full.open("wb") as file:
        VECTORS.tofile(file)


@pytest.mark.parametrize("write", [a_text, a_table, an_array, an_index])
def test_whoever_meets_a_full_disk_it_is_told(write: Callable[[Path], None], full: Path, tmp_path: Path) -> None:
    told = f"no room in {tmp_path} .* bytes are free.*the same command continues"
    with pytest.raises(StorageError, match=told), full_disk_told(tmp_path):
        write(full)


def test_where_a_library_does_not_say_why_the_disk_is_asked(full: Path, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="no room in /proc .*; 0 bytes are free"), full_disk_told(NO_ROOM):
        half_an_array(full)
    with pytest.raises(OSError, match="requested and 0 written"), full_disk_told(tmp_path):
        half_an_array(full)


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.EDQUOT, os.strerror(errno.EDQUOT)),
        RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"),  # safetensors
    ],
)
def test_a_quota_and_words_alone_are_understood(error: Exception, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="no room"), full_disk_told(tmp_path):
        raise error


@pytest.mark.parametrize("error", [InputError("a.tsv is cut"), FileNotFoundError("a"), FileExistsError("a")])
def test_what_has_another_cause_for_sure_is_left_as_it_is_on_a_full_disk_too(error: Exception) -> None:
    with pytest.raises(type(error)) as raised, full_disk_told(NO_ROOM):
        raise error
    assert raised.value is error


@dataclass(frozen=True)
class Filling(Squares):
    """The disk is full at one shard, as long as a file exists."""

    def process(self, task: Task, out: ShardWriter, state: int) -> Counts:
        if task.id == self.bad_shard and Path(self.while_exists).exists():
            FULL.write_bytes(b"a shard")
        return super().process(task, out, state)


def test_a_disk_that_fills_up_stops_the_run_and_the_same_command_continues(tmp_path: Path) -> None:
    root, quiet, no_room = tmp_path / "root", tmp_path / "quiet", tmp_path / "no room"
    no_room.touch()
    run = Run(str(root), [Numbers(6), Filling(bad_shard="000002", while_exists=str(no_room)), Total()])
    report = run.execute(LocalExecutor())
    assert report.exit_code == 1
    assert f"Stopped: no room in {root}" in str(report)
    assert report.failed == {}
    assert len(list((root / "squares" / "commits").iterdir())) == 2
    no_room.unlink()
    run = Run(str(root), [Numbers(6), Filling(bad_shard="000002", while_exists=str(no_room)), Total()])
    assert run.execute(LocalExecutor()).exit_code == 0
    Run(str(quiet), toy_stages()).execute(LocalExecutor())
    assert everything_in(str(root)) == everything_in(str(quiet))
    assert left_in(root) == left_in(quiet)
