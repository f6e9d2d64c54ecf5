"""The faulty store is an object store: whole objects, one winner, and errors on either side of the effect."""

import errno
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fsspec
import pytest

from trials.faulty_store import CallCounts, FaultyStore, counting


def store(error_rate: float = 0, count_in: str = "") -> FaultyStore:
    return FaultyStore(latency_s=0.001, page_s=0, error_rate=error_rate, count_in=count_in, skip_instance_cache=True)


def test_one_of_several_writers_makes_an_object(tmp_path: Path) -> None:
    shared = store()

    def create(number: int) -> bool:
        try:
            shared.pipe_file(f"{tmp_path}/folder/record", str(number).encode(), mode="create")
        except FileExistsError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(create, range(40)))
    assert made.count(True) == 1
    assert shared.cat_file(f"{tmp_path}/folder/record") == str(made.index(True)).encode()
    assert list(shared.find(f"{tmp_path}/folder")) == [f"{tmp_path}/folder/record"]


def test_some_errors_come_before_the_effect_and_some_after_it(tmp_path: Path) -> None:
    failing, there = store(error_rate=1), set()
    for number in range(40):
        with pytest.raises(OSError, match="injected") as raised:
            failing.pipe_file(f"{tmp_path}/{number}", b"data")
        assert raised.value.errno == errno.EBUSY
        there.add((Path(tmp_path, str(number)).exists(), "after" in str(raised.value)))
    assert there == {(True, True), (False, False)}


def test_a_file_is_read_by_ranges_and_by_pyarrow(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"n": [1, 2, 3]}), tmp_path / "written.parquet")
    store().put_file(str(tmp_path / "written.parquet"), f"{tmp_path}/object")
    with store().open(f"{tmp_path}/object", "rb") as file:
        assert pq.read_table(file)["n"].to_pylist() == [1, 2, 3]
    assert store().cat_file(f"{tmp_path}/object", 0, 4) == b"PAR1"


def test_every_call_is_counted_also_in_a_process_that_is_killed(tmp_path: Path) -> None:
    (tmp_path / "calls").mkdir()
    counted = store(error_rate=0.5, count_in=str(tmp_path / "calls"))
    failed = 0
    for number in range(50):
        try:
            counted.pipe_file(f"{tmp_path}/{number}", b"")
        except OSError:
            failed += 1
    # As another process sees it: nothing was closed or flushed.
    counts = CallCounts.of((tmp_path / "calls").iterdir())
    assert (counts.calls, counts.refused + counts.lost) == (50, failed)
    assert min(counts.refused, counts.lost, counts.waited_us) > 0


def test_a_process_counts_what_it_asks_of_the_stores_that_it_opens(tmp_path: Path) -> None:
    (tmp_path / "there").write_bytes(b"data")
    with counting(latency_s=0.001, error_rate=0) as counts:
        opened, _ = fsspec.core.url_to_fs(f"faulty://{tmp_path}")
        assert [opened.cat_file(f"{tmp_path}/there") for _ in range(3)] == 3 * [b"data"]
        assert counts().calls == 3
        assert 1_500 <= counts().waited_us <= 4_500
    with counting(latency_s=0.001, error_rate=0) as counts:
        assert counts().calls == 0
