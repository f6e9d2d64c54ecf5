"""Every listed row is a url row or a reject with one reason, under a number that nothing else changes."""

import gzip
import json
import math
import os
import tracemalloc
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from random import Random
from urllib.parse import urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import FingerprintMismatch
from pipeline.executor import LocalExecutor
from pipeline.reasons import Reason
from pipeline.recipe import Json
from pipeline.run import Run
from pipeline.schemas import URLS
from pipeline.writer import Job
from stages.ingest import Count, ingest_stages
from stages.ingest.checks import NOT_IN_A_URL, PLAIN_URL, caption_fault, path_fault, prefilter_fault, url_fault
from tests.stages.ingest.ingesting import ingest, recipe_of, write_json, write_parquet, write_tar, write_text

URL = b"http://example.org/a.jpg"


def cc3m(path: str, name: str = "cc3m") -> dict[str, Json]:
    return {"name": name, "preset": "cc3m", "files": [path]}


LINES: list[tuple[bytes, Reason | None]] = [
    (b"a dog\t" + URL, None),
    (b'"quoted, and not closed\t' + URL, None),
    (b"", Reason.MALFORMED_ROW),
    (b"no url at all", Reason.MALFORMED_ROW),
    (b"a\tb\t" + URL, Reason.MALFORMED_ROW),
    (b"\t" + URL, Reason.NULL_CAPTION),
    (b" \xc2\xa0\xe2\x80\xa8\t" + URL, Reason.NULL_CAPTION),
    (b"caf\xe9\t" + URL, Reason.NOT_UTF8),
    (b"caf\xc3\xa9\thttp://example.org/\xe9", Reason.NOT_UTF8),
    (b"x" * 100_000 + b"\t" + URL, None),
    (b"x" * 100_001 + b"\t" + URL, Reason.OVERSIZED_CAPTION),
    (b"nul \x00, separators \xe2\x80\xa8 \x1c \xc2\x85 and \r inside\t" + URL + b"\r", None),
    (b"a dog\tftp://example.org/a.jpg", Reason.BAD_URL),
    (b"a dog\t", Reason.BAD_URL),
]


def test_each_fault_of_a_row_has_its_reason_and_shifts_no_other_row(tmp_path: Path) -> None:
    made = ingest(tmp_path / "root", cc3m(write_text(tmp_path / "a.tsv", b"\n".join(line for line, _ in LINES))))
    expected = {f"cc3m-{n:010d}": reason.value for n, (_, reason) in enumerate(LINES) if reason}
    assert made.reasons == expected
    kept = [(f"cc3m-{n:010d}", line.split(b"\t")[0].decode()) for n, (line, reason) in enumerate(LINES) if not reason]
    assert [(row["pair_id"], row["caption"]) for row in made.urls] == kept
    assert {row["url"] for row in made.urls} == {URL.decode()}


@pytest.mark.parametrize("seed", range(3))
def test_shards_together_are_one_pass_over_the_lists(seed: int, tmp_path: Path) -> None:
    random = Random(seed)
    files = [[random.choice(LINES) for _ in range(random.randrange(1, 90))] for _ in range(3)]
    for n, rows in enumerate(files):
        end = random.choice([b"\n", b"\r\n"])
        text = b"".join(line + end for line, _ in rows)
        write_text(tmp_path / f"{n}.tsv{random.choice(['', '.gz'])}", text)
    listed = [row for rows in files for row in rows]
    made = ingest(tmp_path / "root", cc3m(f"{tmp_path}/*.tsv*"), shard_size=random.randrange(1, 40))
    assert made.reasons == {f"cc3m-{n:010d}": reason.value for n, (_, reason) in enumerate(listed) if reason}
    kept = [(f"cc3m-{n:010d}", line.split(b"\t")[0].decode()) for n, (line, reason) in enumerate(listed) if not reason]
    assert [(row["pair_id"], row["caption"]) for row in made.urls] == kept


def test_kept_and_rejected_rows_add_up_in_every_shard(tmp_path: Path) -> None:
    text = b"\n".join(line for line, _ in LINES * 3)
    made = ingest(tmp_path / "root", cc3m(write_text(tmp_path / "a.tsv", text)), shard_size=10)
    assert [record.rows_in for record in made.records] == [10, 10, 10, 10, 2]
    for record, params in zip(made.records, made.params, strict=True):
        assert record.rows_in == record.rows_out + sum(record.rejects.values()) == params["rows"]
    assert Counter(made.reasons.values()) == sum((Counter(record.rejects) for record in made.records), Counter())


def test_files_are_numbered_in_the_order_of_their_names_and_shards_never_span_them(tmp_path: Path) -> None:
    for folder, name in (("z", "a.tsv"), ("y", "c.tsv"), ("x", "b.tsv")):
        (tmp_path / folder).mkdir()
        write_text(tmp_path / folder / name, "".join(f"{name} {n}\thttp://a.b/{n}\n" for n in range(3)))
    listed = [f"{tmp_path}/y/c.tsv", f"{tmp_path}/*/*.tsv"]  # one file twice is read once
    made = ingest(tmp_path / "root", {"name": "s", "preset": "cc3m", "files": listed}, shard_size=2)
    assert [row["caption"] for row in made.urls] == [f"{name}.tsv {n}" for name in "abc" for n in range(3)]
    assert [row["pair_id"] for row in made.urls] == [f"s-{n:010d}" for n in range(9)]
    shards = [("a.tsv", 0, 2), ("a.tsv", 2, 1), ("b.tsv", 3, 2), ("b.tsv", 5, 1), ("c.tsv", 6, 2), ("c.tsv", 8, 1)]
    assert [(params["file"], params["first"], params["rows"]) for params in made.params] == shards


def test_sources_are_numbered_apart(tmp_path: Path) -> None:
    one = write_text(tmp_path / "one.tsv", "a\thttp://a.b/\nb\thttp://a.b/\n")
    made = ingest(tmp_path / "root", cc3m(one, "one"), cc3m(one, "two"))
    expected = ["one-0000000000", "one-0000000001", "two-0000000000", "two-0000000001"]
    assert [row["pair_id"] for row in made.urls] == expected
    assert [row["source"] for row in made.urls] == ["one", "one", "two", "two"]


def test_a_compressed_list_gives_the_rows_of_the_plain_one(tmp_path: Path) -> None:
    text = "".join(f"caption {n}\thttp://a.b/{n}\n" for n in range(50))
    write_text(tmp_path / "plain.tsv", text)
    write_text(tmp_path / "packed.tsv.gz", text)
    plain, packed = (
        ingest(tmp_path / f"root-{name}", cc3m(f"{tmp_path}/{name}"), shard_size=7)
        for name in ("plain.tsv", "packed.tsv.gz")
    )
    assert packed.urls == plain.urls
    assert packed.identity == plain.identity


def test_url_shards_have_the_declared_schema_even_when_empty(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    ingest(tmp_path / "root", cc3m(write_text(tmp_path / "a.tsv", "a\thttp://a.b/\n\t\n\t\n")), shard_size=1)
    files = sorted((tmp_path / "root/ingest_rows/data").iterdir())
    assert len(files) == 3
    assert all(pq.read_schema(file).remove_metadata().equals(URLS) for file in files)


def test_a_list_without_rows_makes_no_shard(tmp_path: Path) -> None:
    write_parquet(tmp_path / "none.parquet", {"URL": [], "TEXT": []})
    write_parquet(tmp_path / "some.parquet", {"URL": ["http://a.b/"], "TEXT": ["a"]})
    made = ingest(tmp_path / "root", {"name": "laion", "preset": "laion", "files": [f"{tmp_path}/*.parquet"]})
    assert [row["pair_id"] for row in made.urls] == ["laion-0000000000"]


def huge(kind: str, folder: Path, caption: str) -> dict[str, Json]:
    url, rest = "http://a.b/", [("http://a.b/1", "before"), ("http://a.b/2", caption), ("http://a.b/3", "after")]
    files = {
        "tsv": lambda: write_text(folder / "a.tsv", "url\tcaption\n" + "".join(f"{u}\t{c}\n" for u, c in rest)),
        "csv": lambda: write_text(folder / "a.csv", "url,caption\n" + "".join(f'{u},"{c}"\n' for u, c in rest)),
        "jsonl": lambda: write_text(
            folder / "a.jsonl", "".join(json.dumps({"url": u, "caption": c}) + "\n" for u, c in rest)
        ),
        "parquet": lambda: write_parquet(
            folder / "a.parquet", {"url": [url] * 3, "caption": [caption for _, caption in rest]}
        ),
    }
    return {"name": "mine", "preset": "table", "files": [files[kind]()]}


@pytest.mark.parametrize("kind", ["tsv", "csv", "jsonl", "parquet"])
def test_a_caption_of_30_megabytes_is_one_reject(kind: str, tmp_path: Path) -> None:
    made = ingest(tmp_path / "root", huge(kind, tmp_path, "tab-free " * 3_500_000), shard_size=2)
    assert made.reasons == {"mine-0000000001": Reason.OVERSIZED_CAPTION}
    assert [row["caption"] for row in made.urls] == ["before", "after"]
    assert max(len(detail) for _, _, detail in made.rejects) <= 300


def test_30_megabytes_of_tabs_do_not_fill_the_memory(tmp_path: Path) -> None:
    path = write_text(tmp_path / "a.tsv", "a\thttp://a.b/\n" + "\t" * 30_000_000 + "\n")
    tracemalloc.start()
    made = ingest(tmp_path / "root", cc3m(path))
    assert tracemalloc.get_traced_memory()[1] < 200_000_000  # bytes
    tracemalloc.stop()
    assert made.reasons == {"cc3m-0000000001": Reason.MALFORMED_ROW}


@pytest.mark.parametrize(
    "url",
    [
        "http://a.b",
        "HTTPS://A.B/x.jpg",
        " http://a.b/ ",
        "http://[2001:db8::1]:8080/a",
        "http://bücher.example/ü",
        "https://a.b/?q=%20#f",
        "http://user@a.b/",
        "http://a.b/" + "x" * (4096 - 11),
    ],
)
def test_urls_that_may_be_tried(url: str) -> None:
    assert url_fault(url.encode()) is None


@pytest.mark.parametrize(
    "url",
    [
        "",
        "a.b/x.jpg",
        "//a.b/x.jpg",
        "http:/a.b",
        "http://",
        "http:///x.jpg",
        "http://:80/",
        "ftp://a.b/",
        "file:///etc/passwd",
        "data:image/png;base64,AA",
        "javascript:alert(1)",
        "http://a b/",
        "http://a.b/x y.jpg",
        "http://a.b/x\ny.jpg",
        "http://a.b/\x00",
        "http://a.b/\x7f",
        "http://a.b/\u2028",
        "http://[::1/",
        "http://a.b:99999/",
        "http://a.b:port/",
        "http://a.b/" + "x" * (4097 - 11),
        None,
    ],
)
def test_urls_that_name_no_web_page(url: str | None) -> None:
    fault = url_fault(None if url is None else url.encode())
    assert fault is not None
    assert fault.reason is Reason.BAD_URL


@settings(max_examples=50)
@given(st.from_regex(PLAIN_URL, fullmatch=True))
def test_what_is_plainly_a_url_has_a_host_and_nothing_amiss(url: str) -> None:
    parts = urlsplit(url)
    assert parts.scheme in ("http", "https")
    assert parts.hostname
    assert parts.port is None
    assert not NOT_IN_A_URL.search(url)


@pytest.mark.parametrize("name", ["../a.jpg", "a/../../b.jpg", "/etc/passwd", "", ".", "a\x00.jpg", "a\n.jpg", ".."])
def test_a_picture_outside_the_folder_is_refused(name: str) -> None:
    fault = path_fault(name.encode())
    assert fault is not None
    assert fault.reason is Reason.BAD_PATH


@pytest.mark.parametrize("name", ["a.jpg", "train/a.jpg", "./a.jpg", "..a.jpg", "ü b.jpg"])
def test_a_picture_inside_the_folder_is_taken(name: str) -> None:
    assert path_fault(name.encode()) is None


def test_local_lists_reject_rows_for_their_own_reasons(tmp_path: Path) -> None:
    images = [{"id": 1, "file_name": "a.jpg"}, {"id": 2, "file_name": "../../etc/passwd"}, {"id": 3, "file_name": None}]
    images.append({"id": 4, "file_name": "uncaptioned.jpg"})
    captions = [(1, "good"), (2, "outside"), (9, "of no image"), (1, None), (1, 5), (1, "\ud800"), (3, "no name")]
    document = {"images": images, "annotations": [{"image_id": i, "caption": c} for i, c in captions]}
    files = [write_json(tmp_path / "c.json", document)]
    made = ingest(tmp_path / "root", {"name": "coco", "preset": "coco", "files": files, "folder": str(tmp_path)})
    assert [row["caption"] for row in made.urls] == ["good"]
    reasons = ["bad_path", "malformed_row", "null_caption", "malformed_row", "not_utf8", "malformed_row"]
    assert list(made.reasons.values()) == [*reasons, "null_caption"]


def test_a_picture_without_captions_and_captions_without_picture_are_rejects(tmp_path: Path) -> None:
    files = [
        ("0.jpg", b"x"),
        ("1.txt", b"no picture"),
        ("2.jpg", b"x"),
        ("2.json", b"{"),
        ("3.png", b"x"),
        ("3.json", b'{"captions": [1, "good", null]}'),
        ("._3.jpg", b"of a file system"),
        ("4.jpg", b"x"),
        ("4.txt", b"caf\xe9"),
        ("5.jpg", b"x"),
        ("5.json", b'{"captions": []}'),
    ]
    made = ingest(
        tmp_path / "root", {"name": "w", "preset": "webdataset", "files": [write_tar(tmp_path / "w.tar", files)]}
    )
    assert [row["caption"] for row in made.urls] == ["good"]
    assert [int(pair_id[-2:]) for pair_id in made.reasons] == [0, 1, 2, 3, 5, 6, 7]
    assert list(made.reasons.values()) == [
        "null_caption",
        "malformed_row",
        "malformed_row",
        "malformed_row",
        "null_caption",
        "not_utf8",
        "null_caption",
    ]


@pytest.mark.parametrize(
    ("bound", "limit", "kept", "dropped", "reason"),
    [
        ("min_clip_score", 0.3, 0.3, 0.2999, Reason.PREFILTER_CLIP_SCORE),
        ("min_width", 64, 64, 63, Reason.PREFILTER_SIZE),
        ("min_height", 64, 64, 63, Reason.PREFILTER_SIZE),
        ("max_nsfw", 0.5, 0.5, 0.5001, Reason.PREFILTER_NSFW),
        ("max_watermark", 0.5, 0.5, 0.5001, Reason.PREFILTER_WATERMARK),
        ("min_aesthetic", 4.5, 4.5, 4.4, Reason.PREFILTER_AESTHETIC),
    ],
)
def test_a_bound_is_kept_and_so_is_a_row_without_the_score(
    bound: str, limit: float, kept: float, dropped: float, reason: Reason, tmp_path: Path
) -> None:
    field = bound.partition("_")[2]
    scores = [kept, dropped, None, math.nan]
    table: Mapping[str, Json] = {"url": ["http://a.b/"] * 4, "text": list("abcd"), "score": scores}
    source = {"name": "coyo", "preset": "coyo", "files": [write_parquet(tmp_path / "a.parquet", table)]}
    asked = {"columns": {field: "score"}, "prefilter": {bound: limit}}
    made = ingest(tmp_path / "root", source | asked)
    assert [row["caption"] for row in made.urls] == ["a", "c", "d"]
    assert made.reasons == {"coyo-0000000001": reason}


def test_of_several_faults_the_first_is_told() -> None:
    assert caption_fault(b"\xff" * 200_000) == (Reason.OVERSIZED_CAPTION, "200,000 bytes, 100,000 are allowed")
    fault = prefilter_fault({"width": 1.0, "nsfw": 1.0}, {"min_width": 2, "max_nsfw": 0.5})
    assert fault == (Reason.PREFILTER_SIZE, "width 1, min_width 2")


def test_the_count_pins_the_content_and_the_fingerprint_names_no_path(tmp_path: Path) -> None:
    identities = []
    for folder, text in (("one", "a\thttp://a.b/1\n"), ("two", "a\thttp://a.b/1\n"), ("three", "a\thttp://a.b/2\n")):
        (tmp_path / folder).mkdir()
        source = cc3m(write_text(tmp_path / folder / "a.tsv", text))
        recipe = recipe_of(source)
        assert str(tmp_path) not in json.dumps([dict(stage.settings()) for stage in ingest_stages(recipe)])
        identities.append(json.dumps(ingest(tmp_path / f"root-{folder}", source).counts))
    assert identities[0] == identities[1] != identities[2]


def test_another_list_or_order_is_refused_on_resume(tmp_path: Path) -> None:
    one, two = (cc3m(write_text(tmp_path / f"{n}.tsv", f"{n}\thttp://a.b/\n"), n) for n in ("one", "two"))
    ingest(tmp_path / "root", one, two)
    with pytest.raises(FingerprintMismatch, match="order"):
        ingest(tmp_path / "root", two, one)
    write_text(tmp_path / "one.tsv", "longer\thttp://a.b/\n")
    with pytest.raises(FingerprintMismatch, match=r"one\.tsv"):
        ingest(tmp_path / "root", one, two)


def test_a_list_that_changes_after_it_was_counted_is_not_read(tmp_path: Path) -> None:
    path = write_text(tmp_path / "a.tsv", "a\thttp://a.b/\n")
    recipe = recipe_of(cc3m(path))
    root = str(tmp_path / "root")

    class Growing(LocalExecutor):
        def finish(self, job: Job) -> None:
            write_text(tmp_path / "a.tsv", "a\thttp://a.b/\n" * 2)

    stages = ingest_stages(recipe)
    assert stages[-1].settings()  # as the driver does first
    report = Run(root, stages).execute(Growing())
    assert report.exit_code == 1
    assert "a.tsv changed after its rows were counted" in str(report)


def test_lists_may_move_between_resumes(tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    text = "a\thttp://a.b/\n"
    first = ingest(tmp_path / "root", cc3m(write_text(tmp_path / "a.tsv", text)))
    os.rename(tmp_path / "a.tsv", tmp_path / "new" / "a.tsv")
    again = ingest(tmp_path / "root", cc3m(f"{tmp_path}/new/a.tsv"))
    assert again.records == first.records


def test_a_list_may_lie_on_any_file_system(tmp_path: Path) -> None:
    import fsspec

    text = b"".join(b"caption %d\thttp://a.b/%d\n" % (n, n) for n in range(9))
    with fsspec.open("memory://lists/a.tsv.gz", "wb") as file:
        file.write(gzip.compress(text))
    there = ingest(tmp_path / "there", cc3m("memory://lists/*.gz"), shard_size=4)
    here = ingest(tmp_path / "here", cc3m(write_text(tmp_path / "a.tsv.gz", text)), shard_size=4)
    assert there.urls == here.urls


def test_a_document_of_another_shape_is_refused(tmp_path: Path) -> None:
    recipe = recipe_of({"name": "s", "preset": "sbu", "files": [write_json(tmp_path / "s.json", {"captions": ["a"]})]})
    report = Run(str(tmp_path / "root"), [Count(recipe)]).execute(LocalExecutor())
    assert "s.json has no array image_urls; it has captions" in str(report)
