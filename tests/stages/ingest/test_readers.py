"""What a reader yields from any mark is what the slow obvious reader finds there, whatever the bytes."""

import csv
import gzip
import io
import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.errors import InputError
from pipeline.reasons import Reason
from stages.ingest.lists import ListFile
from stages.ingest.parquet import Parquet
from stages.ingest.readers import MAX_CSV_CELL, AlignedLines, Csv, JsonLines, Reader, Tsv
from stages.ingest.records import Fault, Raw
from stages.ingest.tars import Webdataset
from tests.stages.ingest.ingesting import write_parquet, write_tar, write_text

Row = Raw | Fault

NASTY = [
    "",
    "a",
    '"',
    '""',
    ",",
    "\t",
    "\r",
    "\r\n",
    "\n",
    "\u2028",
    "\x00",
    "\x85",
    "\ufeff",
    "é",
    "日本",
    " ",
    "\x1c",
]
NASTY_BYTES = [*(text.encode() for text in NASTY), b"\xff", b"\xc3"]
nasty_text = st.lists(st.sampled_from(NASTY), max_size=6).map("".join)
nasty_bytes = st.lists(st.sampled_from(NASTY_BYTES), max_size=40).map(b"".join)
every = st.integers(1, 5)
quick = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

NAMED = {"url": "url", "caption": "caption"}


def list_file(*paths: Path | str, columns: dict[str, str] = NAMED) -> ListFile:
    return ListFile(tuple(str(p) for p in paths), tuple(Path(p).stat().st_size for p in paths), columns)


def as_bytes(text: str | None) -> bytes | None:
    return None if text is None else text.encode()


def from_marks(reader: Reader, file: ListFile, every: int) -> list[Row]:
    """As shards would read it: a start at every mark, `every` rows each."""
    rows, marks = reader.count(file, every)
    found: list[Row] = []
    for mark in marks:
        found += [row for (_, row), _ in zip(reader.rows(file, mark), range(every), strict=False)]
    assert len(found) == rows
    assert json.loads(json.dumps(marks)) == marks
    return found


def slow_lines(data: bytes) -> list[bytes]:
    parts = data.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    parts = parts if parts[-1] else parts[:-1]
    return [part.removesuffix(b"\r") for part in parts]


def slow_tsv(data: bytes) -> list[Row]:
    cells = [line.split(b"\t") for line in slow_lines(data)]
    return [Raw(row[0], row[1], numbers={}) if len(row) == 2 else Fault(Reason.MALFORMED_ROW, "") for row in cells]


def without_detail(rows: list[Row]) -> list[Row]:
    return [row._replace(detail="") if isinstance(row, Fault) else row for row in rows]


@quick
@given(data=nasty_bytes.filter(lambda data: data.removeprefix(b"\xef\xbb\xbf") == data and data != b""), every=every)
def test_tsv_rows_end_at_newlines_alone(data: bytes, every: int, tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_bytes(data)
    (tmp_path / "a.tsv.gz").write_bytes(gzip.compress(data))
    for name in ("a.tsv", "a.tsv.gz"):
        reader = Tsv(("caption", "url"))
        assert without_detail(from_marks(reader, list_file(tmp_path / name), every)) == slow_tsv(data)


@quick
@given(rows=st.lists(st.tuples(nasty_text, nasty_text, nasty_text), max_size=12), every=every, gz=st.booleans())
def test_csv_rows_are_those_of_the_standard_reader(
    rows: list[tuple[str, str, str]], every: int, gz: bool, tmp_path: Path
) -> None:
    text = io.StringIO(newline="")
    csv.writer(text, quoting=csv.QUOTE_MINIMAL).writerows([("caption", "x", "url"), *rows])
    path = tmp_path / ("a.csv.gz" if gz else "a.csv")
    write_text(path, text.getvalue())
    assert from_marks(Csv(), list_file(path), every) == [Raw(c.encode(), u.encode(), numbers={}) for c, _, u in rows]


@quick
@given(data=nasty_bytes, every=every)
def test_broken_csv_reads_the_same_from_every_mark(data: bytes, every: int, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"url,caption\n" + data)
    file = list_file(tmp_path / "a.csv")
    assert from_marks(Csv(), file, every) == [row for _, row in Csv().rows(file)]


@quick
@given(
    rows=st.lists(st.dictionaries(st.sampled_from(["url", "caption", "x"]), st.none() | nasty_text | st.integers())),
    every=every,
)
def test_json_lines_hold_a_row_each(rows: list[dict[str, str | int | None]], every: int, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\r\n" for row in rows) or "\n", encoding="utf-8")
    found = from_marks(JsonLines(), list_file(tmp_path / "a.jsonl"), every)
    for row, raw in zip(rows, found, strict=bool(rows)):
        url, caption = row.get("url"), row.get("caption")
        if isinstance(url, int) or isinstance(caption, int):
            assert isinstance(raw, Fault)
        else:
            assert raw == Raw(as_bytes(caption), as_bytes(url), numbers={})


@quick
@given(rows=st.lists(st.tuples(nasty_text | st.none(), nasty_text | st.none()), max_size=30), every=every)
def test_parquet_rows_are_found_across_row_groups(
    rows: list[tuple[str | None, str | None]], every: int, tmp_path: Path
) -> None:
    table = {"url": [url for url, _ in rows], "caption": [caption for _, caption in rows]}
    path = tmp_path / "a.parquet"
    write_parquet(path, {name: _strings(column) for name, column in table.items()}, row_group_size=7)
    expected = [Raw(as_bytes(c), as_bytes(u), numbers={}) for u, c in rows]
    assert from_marks(Parquet(), list_file(path), every) == expected


def _strings(values: list[str | None]) -> object:
    import pyarrow as pa

    return pa.array(values, pa.string())


@quick
@given(samples=st.lists(st.lists(nasty_text, max_size=4), min_size=1, max_size=6), every=every)
def test_tar_marks_may_lie_inside_a_sample(samples: list[list[str]], every: int, tmp_path: Path) -> None:
    files = []
    for n, captions in enumerate(samples):
        name = f"folder.x/{n:04d}{'long' * 40 if n % 3 == 2 else ''}"  # long names take headers of their own
        files += [(f"{name}.jpg", b"x" * (n * 300)), (f"{name}.json", json.dumps({"captions": captions}).encode())]
    write_tar(tmp_path / "a.tar", files)
    found = from_marks(Webdataset(), list_file(tmp_path / "a.tar"), every)
    told: list[str | None] = []
    for captions in samples:
        told += captions or [None]
    assert [raw.caption for raw in found if isinstance(raw, Raw)] == [as_bytes(c) for c in told]


def test_rows_far_inside_a_large_row_group_are_found(tmp_path: Path) -> None:
    names = [f"{n}" for n in range(20_000)]
    path = write_parquet(tmp_path / "a.parquet", {"url": names, "caption": names}, row_group_size=15_000)
    for first in (0, 4095, 4096, 14_999, 15_000, 19_999):
        mark, raw = next(Parquet().rows(list_file(path), [first]))
        assert (mark, raw) == ([first], Raw(str(first).encode(), str(first).encode(), numbers={}))


def test_a_byte_order_mark_belongs_to_no_row(tmp_path: Path) -> None:
    for name, reader in (("a.csv", Csv()), ("b.tsv", Tsv())):
        separator = "," if name == "a.csv" else "\t"
        write_text(tmp_path / name, f"\ufeffurl{separator}caption\nhttp://a.b/{separator}c\n")
        assert [row for _, row in reader.rows(list_file(tmp_path / name))] == [Raw(b"c", b"http://a.b/", numbers={})]


def test_a_quote_that_is_never_closed_costs_little(tmp_path: Path) -> None:
    lines = [f"http://a.b/{n},caption {n}\n" for n in range(40_000)]
    lines[100] = 'http://a.b/100,"caption 100\n'
    path = write_text(tmp_path / "a.csv", "url,caption\n" + "".join(lines))
    rows = [row for _, row in Csv().rows(list_file(path))]
    faults = [row for row in rows if isinstance(row, Fault)]
    assert len(faults) == 1
    assert 40_000 - len(rows) < 2 * MAX_CSV_CELL / len(lines[0])
    assert rows[-1] == Raw(b"caption 39999", b"http://a.b/39999", numbers={})


def test_scores_that_are_no_numbers_are_null(tmp_path: Path) -> None:
    cells = ["0.5", "", "n/a", "nan", "inf", "1e999", "-1"]
    path = write_text(tmp_path / "a.csv", "url,caption,s\n" + "".join(f"u,c,{cell}\n" for cell in cells))
    rows = [row for _, row in Csv().rows(list_file(path, columns={**NAMED, "nsfw": "s"}))]
    assert [row.numbers["nsfw"] for row in rows if isinstance(row, Raw)] == [0.5, None, None, None, None, None, -1.0]


def half_a_tar(folder: Path) -> tuple[Reader, ListFile]:
    path = write_tar(folder / "a.tar", [(f"{n}.{kind}", b"x" * 700) for n in range(9) for kind in ("jpg", "txt")])
    Path(path).write_bytes(Path(path).read_bytes()[:-10_240][:4096])
    return Webdataset(), list_file(path)


def a_tar_cut_between_files(folder: Path) -> tuple[Reader, ListFile]:
    path = write_tar(folder / "a.tar", [(f"{n}.{kind}", b"x" * 512) for n in range(9) for kind in ("jpg", "txt")])
    Path(path).write_bytes(Path(path).read_bytes()[: 1024 * 6])
    return Webdataset(), list_file(path)


def half_a_gz(folder: Path) -> tuple[Reader, ListFile]:
    (folder / "a.tsv.gz").write_bytes(gzip.compress(b"c\thttp://a.b/\n" * 100_000)[:-300])
    return Tsv(("caption", "url")), list_file(folder / "a.tsv.gz")


def texts_of_other_lengths(folder: Path) -> tuple[Reader, ListFile]:
    one, two = write_text(folder / "urls", "http://a.b/\n"), write_text(folder / "captions", "a\nb\n")
    return AlignedLines(), list_file(one, two)


@pytest.mark.parametrize("broken", [half_a_tar, a_tar_cut_between_files, half_a_gz, texts_of_other_lengths])
def test_a_list_that_breaks_off_is_refused(broken: Callable[[Path], tuple[Reader, ListFile]], tmp_path: Path) -> None:
    reader, file = broken(tmp_path)
    with pytest.raises(InputError, match=file.name.split()[0]):
        reader.count(file, 10)


@pytest.mark.parametrize(
    ("name", "reader"), [("a.tsv", Tsv(("url", "caption"))), ("a.csv", Csv()), ("a.jsonl", JsonLines())]
)
def test_reading_a_list_does_not_hold_it_in_memory(name: str, reader: Reader, tmp_path: Path) -> None:
    row = {"a.tsv": "http://a.b/\tc\n", "a.csv": "http://a.b/,c\n", "a.jsonl": '{"url":"http://a.b/","caption":"c"}\n'}[
        name
    ]
    path = write_text(tmp_path / name, ("url,caption\n" if name == "a.csv" else "") + row * 60_000)
    tracemalloc.start()
    assert sum(1 for _ in reader.rows(list_file(path))) == 60_000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_500_000  # bytes


@pytest.mark.parametrize("group_rows", [15_000, 1_000])
def test_of_parquet_no_column_of_a_row_group_is_held_whole(group_rows: int, tmp_path: Path) -> None:
    random = Random(1)
    columns = {
        "url": [f"http://a.b/{random.randbytes(200).hex()}" for _ in range(15_000)],
        "caption": [random.randbytes(200).hex() for _ in range(15_000)],
    }
    path = write_parquet(tmp_path / "a.parquet", columns, group_rows)
    del columns
    tracemalloc.start()
    assert sum(1 for _ in Parquet().rows(list_file(path))) == 15_000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8_000_000  # bytes; the file has 12 million
