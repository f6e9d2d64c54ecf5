"""Faults of the recipe and of its files are told before anything starts, with what to change."""

import gzip
from pathlib import Path

import pytest
from pydantic import ValidationError

from pipeline.recipe import Json
from stages.ingest import check_sources
from tests.stages.ingest.ingesting import recipe_of, write_json, write_parquet, write_tar, write_text

CC3M = "".join(f"a dog on a beach {n}\thttp://a.b/{n}.jpg\n" for n in range(30))
LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n"
COCO = {"info": {}, "images": [{"id": 1, "file_name": "a.jpg"}], "annotations": [{"image_id": 1, "caption": "a"}]}


def faults(preset: str, path: str, **settings: Json) -> list[str]:
    return check_sources(recipe_of({"name": "s", "preset": preset, "files": [path], **settings}))


def test_columns_the_wrong_way_round_name_the_likely_preset(tmp_path: Path) -> None:
    (fault,) = faults("cc12m", write_text(tmp_path / "cc12m.tsv", CC3M))
    assert fault == (
        'cc12m.tsv: column 1 should be urls, but row 1 holds "a dog on a beach 0". cc12m is TSV (url, caption), '
        'no header; cc3m is TSV (caption, url), no header: is ingest.sources[0].preset "cc3m"?'
    )


@pytest.mark.parametrize("right", ["cc3m", "cc12m", "sbu", "coyo", "laion", "coco", "karpathy", "webdataset"])
@pytest.mark.parametrize("given", ["cc3m", "cc12m", "sbu", "coyo", "laion", "coco", "karpathy", "webdataset", "table"])
def test_the_wrong_preset_is_told_with_the_right_one(given: str, right: str, tmp_path: Path) -> None:
    pairs = {"url": ["http://a.b/"], "caption": ["a"]}
    path = {
        "cc3m": lambda: write_text(tmp_path / "list", CC3M),
        "cc12m": lambda: write_text(tmp_path / "list", "http://a.b/\ta dog\n"),
        "sbu": lambda: write_json(tmp_path / "list", {"captions": pairs["caption"], "image_urls": pairs["url"]}),
        "coyo": lambda: write_parquet(tmp_path / "list.parquet", {"url": pairs["url"], "text": pairs["caption"]}),
        "laion": lambda: write_parquet(tmp_path / "list.parquet", {"URL": pairs["url"], "TEXT": pairs["caption"]}),
        "coco": lambda: write_json(tmp_path / "list", COCO),
        "karpathy": lambda: write_json(tmp_path / "list", {"images": [{"sentids": [0], "sentences": []}]}),
        "webdataset": lambda: write_tar(tmp_path / "list.tar", [("0.jpg", b"x"), ("0.txt", b"a")]),
    }[right]()
    settings = {"folder": str(tmp_path)} if given in ("coco", "karpathy") else {}
    found = faults(given, path, **settings)
    if given == right:
        assert found == []
    else:
        assert len(found) == 1
        assert found[0].endswith(f'is ingest.sources[0].preset "{right}"?')


def test_every_fault_of_every_file_is_told(tmp_path: Path) -> None:
    good, bad = write_text(tmp_path / "a.tsv", CC3M), write_text(tmp_path / "b.tsv", "one column\n")
    found = check_sources(
        recipe_of(
            {"name": "one", "preset": "cc3m", "files": [good, bad]},
            {"name": "two", "preset": "cc3m", "files": [good]},
            {"name": "three", "preset": "cc3m", "files": [f"{tmp_path}/none.tsv", f"{tmp_path}/*.nothing", good]},
        )
    )
    assert len(found) == 3
    assert found[0].startswith("b.tsv: row 1 is no row of this form: 1 columns instead of 2.")
    assert found[1] == f"ingest.sources[2].files: {tmp_path}/none.tsv matches no file"
    assert found[2] == f"ingest.sources[2].files: {tmp_path}/*.nothing matches no file"


@pytest.mark.parametrize("preset", ["cc3m", "sbu", "coyo", "webdataset", "table"])
@pytest.mark.parametrize(
    ("content", "told"), [(LFS, "is a Git LFS pointer, not the data"), ("", "is empty (0 bytes)")], ids=["lfs", "empty"]
)
def test_what_was_never_fetched_is_told(preset: str, content: str, told: str, tmp_path: Path) -> None:
    suffix = {"coyo": ".parquet", "webdataset": ".tar", "table": ".csv"}.get(preset, "")
    (fault,) = faults(preset, write_text(tmp_path / f"list{suffix}", content))
    assert f"list{suffix} {told}" in fault


def test_compression_that_belies_the_name_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_bytes(gzip.compress(CC3M.encode()))
    (tmp_path / "b.tsv.gz").write_bytes(CC3M.encode())
    (tmp_path / "c.tar").write_bytes(gzip.compress(b"x"))
    for preset, name, told in (
        ("cc3m", "a.tsv", "a.tsv is compressed by gzip"),
        ("cc3m", "b.tsv.gz", "b.tsv.gz is damaged"),
        ("webdataset", "c.tar", "c.tar is compressed by gzip"),
    ):
        assert faults(preset, f"{tmp_path}/{name}")[0].startswith(told)


def test_missing_columns_are_named_with_those_that_are_there(tmp_path: Path) -> None:
    (fault,) = faults("table", write_text(tmp_path / "a.csv", "link,text\nhttp://a.b/,a\n"), columns={"url": "link"})
    assert fault.startswith("a.csv has no column caption; its columns are link, text.")
    (fault,) = faults("table", write_text(tmp_path / "a.tsv", "url\tcaption\nhttp://a.b/\ta\n"), columns={"nsfw": "x"})
    assert fault.startswith("a.tsv has no column x; its columns are url, caption.")


def test_a_column_of_another_type_is_told(tmp_path: Path) -> None:
    table = {"url": ["http://a.b/"], "text": ["a"], "watermark_score": ["low"]}
    (fault,) = faults("coyo", write_parquet(tmp_path / "a.parquet", table))
    assert "column watermark_score should be numbers (watermark), but is string" in fault


def test_a_prefilter_needs_its_column_in_the_file(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", {"URL": ["http://a.b/"], "TEXT": ["a"]})
    assert faults("laion", path) == []
    (fault,) = faults("laion", path, prefilter={"max_nsfw": 0.5})
    assert "a.parquet has no column punsafe" in fault


def test_text_in_two_files_needs_both(tmp_path: Path) -> None:
    urls = write_text(tmp_path / "urls.txt", "http://a.b/\n")
    (fault,) = faults("sbu_text", urls)
    assert fault.startswith("urls.txt: should be two texts, one named …url… and one …caption…")
    write_text(tmp_path / "captions.txt", "a\n")
    assert faults("sbu_text", f"{tmp_path}/*.txt") == []


def test_credentials_in_a_url_are_refused_and_not_repeated() -> None:
    (fault,) = faults("cc3m", "s3://key:secret@bucket/a.tsv")
    assert "credentials" in fault
    assert "secret" not in fault


def test_only_the_head_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_text(CC3M)
    with path.open("ab") as file:
        file.truncate(1 << 33)  # bytes, of which the disk holds none
    assert faults("cc3m", str(path)) == []


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ({"preset": "cc13m"}, "the presets are cc3m, cc12m"),
        ({"name": "Mine"}, "String should match pattern"),
        ({"name": "a.b"}, "String should match pattern"),
        ({"files": []}, "at least 1 item"),
        ({"columns": {"url": "link"}}, "preset cc3m (TSV (caption, url), no header) takes no columns"),
        ({"prefilter": {"max_nsfw": 0.5}}, "takes no prefilter"),
        ({"folder": "images"}, "takes no folder"),
        ({"split": "test"}, "takes no split"),
        ({"preset": "coco"}, "preset coco needs `folder`"),
        ({"preset": "table", "prefilter": {"min_width": 64}}, "prefilter needs the source's names in columns.width"),
        ({"preset": "table", "columns": {"link": "url"}}, "Extra inputs are not permitted"),
    ],
)
def test_settings_that_a_source_cannot_have_are_refused(source: dict[str, Json], told: str) -> None:
    with pytest.raises(ValidationError) as error:
        recipe_of({"name": "s", "preset": "cc3m", "files": ["a.tsv"], **source})
    assert told in str(error.value)


def test_two_sources_of_one_name_are_refused() -> None:
    with pytest.raises(ValidationError, match="two sources are named s"):
        recipe_of(*[{"name": "s", "preset": "cc3m", "files": ["a.tsv"]}] * 2)
