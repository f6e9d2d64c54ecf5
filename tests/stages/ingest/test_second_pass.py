"""What failed in passing is fetched again under its old pair ids, by a run of its own; the corpus takes both."""

import hashlib
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from PIL import Image

from demo.server import Answer, Server, serve
from pipeline.commits import Whole
from pipeline.errors import InputError, RecipeError
from pipeline.executor import LocalExecutor
from pipeline.reasons import TRANSIENT, Reason
from pipeline.recipe import Json, Section, dump_recipe, load_recipe
from pipeline.run import Base, Run
from pipeline.schemas import EMBEDDED
from pipeline.stage import Counts, Input, Stage
from pipeline.writer import ShardWriter, Task
from stages.download import Download, DownloadRecipe
from stages.filter import THIS_RUN, CorpusReader, FilterRecipe, Thresholds, filter_stages
from stages.ingest import IngestRecipe, check_sources, ingest_stages, source_lists
from tests.stages.ingest.ingesting import recipe_of, write_text

ROWS, SHARD = 17, 4  # of each of two sources
BUSY, GONE, BROKEN = {0, 4, 5, 6, 7, 9, 16}, {2, 11}, 12  # rows of both; BROKEN never answers well
EVERYTHING = Thresholds(min_clip_score=None, max_aspect=None, text=None)


def picture(row: int) -> bytes:
    jpeg = io.BytesIO()
    Image.new("RGB", (80 + row, 70), (11 * row, 200, 250 - 9 * row)).save(jpeg, "JPEG")
    return jpeg.getvalue()


def answers(*, well: bool) -> dict[str, Answer]:
    found = {f"/{row}": Answer(picture(row)) for row in range(ROWS)}
    found |= {f"/{row}": Answer(status=404) for row in GONE} | {f"/{BROKEN}": Answer(status=503)}
    return found if well else found | {f"/{row}": Answer(status=503) for row in BUSY}


@dataclass(frozen=True)
class Embedded(Stage[None]):
    """A vector that is told from the picture."""

    name, version = "embed", 1

    @property
    def inputs(self) -> Sequence[Input]:
        return (Input("download"),)

    def settings(self) -> Mapping[str, Json]:
        return {}

    def process(self, task: Task, out: ShardWriter, state: None) -> Counts:
        rows = task.read("download").table("pairs")
        rows = rows.filter(pc.is_null(rows["reason"]))
        scores = pa.array([0.5] * rows.num_rows, pa.float32())
        out.table("pairs", "{stem}.parquet", pa.table([rows["key"], rows["caption"], scores], schema=EMBEDDED))
        vectors = np.array(rows["original_width"]).reshape(-1, 1).astype(np.float16)
        out.array("img_emb", "img_emb/img_emb_{stem}.npy", vectors)
        out.array("text_emb", "text_emb/text_emb_{stem}.npy", vectors)
        return Counts(rows.num_rows, rows.num_rows)


@dataclass(frozen=True)
class Breaking(Download):
    """Its second shard fails for good."""

    def process(self, task: Task, out: ShardWriter, state: None) -> Counts:
        if task.id == "000001":
            raise ValueError("not to my taste")
        return super().process(task, out, state)


@dataclass(frozen=True)
class First:
    root: Path
    server: Server
    recipe: IngestRecipe

    def download(self) -> DownloadRecipe:
        return DownloadRecipe(retries=0, allow=frozenset({f"127.0.0.1:{self.server.port}"}))

    def crawl(self, root: Path, ingest: IngestRecipe, filtered: FilterRecipe | None = None) -> str:
        stages = [*ingest_stages(ingest), Download(self.download()), Embedded()]
        execute(root, [*stages, *(filter_stages(filtered) if filtered else [])])
        return str(root)

    def again(self, root: Path, *, of: str = "", inputs: Sequence[str] = (), **settings: Json) -> str:
        """A second pass, and a corpus where inputs are named."""
        filtered = FilterRecipe(inputs=tuple(inputs), defaults=EVERYTHING, shard_rows=7) if inputs else None
        return self.crawl(root, second_pass(of or str(self.root), **settings), filtered)


def second_pass(root: str, shard_size: int = 5, **settings: Json) -> IngestRecipe:
    return IngestRecipe.model_validate(
        {"sources": [{"preset": "rejects", "root": root, **settings}]} | {"shard_size": shard_size}
    )


def execute(root: Path, stages: Sequence[Stage[Any]], base: Base | None = None, *, accept_failed: bool = False) -> None:
    report = Run(str(root), stages, base, accept_failed=accept_failed).execute(LocalExecutor())
    assert report.exit_code == 0, str(report)


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Iterator[First]:
    folder = tmp_path_factory.mktemp("first pass")
    with serve(answers(well=False)) as server:
        text = "".join(f"caption {row}\t{server.base_url}/{row}\n" for row in range(ROWS))
        sources = [
            {"name": name, "preset": "cc3m", "files": [write_text(folder / f"{name}.tsv", text)]} for name in ("b", "a")
        ]
        made = First(folder / "root", server, recipe_of(*sources, shard_size=SHARD))
        made.crawl(made.root, made.recipe)
        server.answers = answers(well=True)
        yield made


def ids(*rows: int) -> list[str]:
    return [f"{source}-{row:010d}" for source in ("b", "a") for row in sorted(rows)]


def listed(root: str | Path) -> pa.Table:
    return Whole.open(str(root), "ingest_rows").tables("urls")


def everything_below(root: Path) -> dict[str, tuple[int, bytes]]:
    files = [path for path in root.rglob("*") if path.is_file()]
    return {str(path): (path.stat().st_mtime_ns, path.read_bytes()) for path in files}


def check_corpus(root: str, expected: Mapping[str, int]) -> None:
    """Rows in this order, of these inputs, each with its own picture."""
    reader = CorpusReader(root)
    rows = [reader.row(row_id) for row_id in range(reader.rows)]
    assert [(row["pair_id"], row["input"]) for row in rows] == list(expected.items())
    for row in rows:
        jpeg = reader.picture(row)
        assert hashlib.sha256(jpeg).hexdigest() == row["stored_sha256"]
        with Image.open(io.BytesIO(jpeg)) as image:
            assert image.size == (80 + int(row["pair_id"][-10:]), 70)


def test_a_second_pass_fetches_what_failed_and_the_corpus_takes_both(first: First, tmp_path: Path) -> None:
    before = everything_below(first.root)
    root = first.again(tmp_path, inputs=(str(first.root), THIS_RUN))
    assert everything_below(first.root) == before
    rows, old = listed(root), listed(first.root)
    assert rows["pair_id"].to_pylist() == ids(*BUSY, BROKEN)
    assert rows.equals(old.filter(pc.is_in(old["pair_id"], value_set=pa.array(ids(*BUSY, BROKEN)))))
    good = set(range(ROWS)) - BUSY - GONE - {BROKEN}
    check_corpus(root, dict.fromkeys(sorted(ids(*good)), 0) | dict.fromkeys(sorted(ids(*BUSY)), 1))
    assert Whole.open(root, "filter_judge").rows == 2 * (ROWS - len(GONE) - 1)


def test_a_root_that_has_moved_still_finds_its_own_pictures(first: First, tmp_path: Path) -> None:
    root = first.again(tmp_path / "here", inputs=(THIS_RUN, str(first.root)))
    Path(root).rename(tmp_path / "there")
    good = set(range(ROWS)) - BUSY - GONE - {BROKEN}
    expected = dict.fromkeys(sorted(ids(*BUSY)), 0) | dict.fromkeys(sorted(ids(*good)), 1)
    check_corpus(str(tmp_path / "there"), expected)


def test_a_third_pass_reads_the_second(first: First, tmp_path: Path) -> None:
    second = first.again(tmp_path / "second")
    first.server.answers = answers(well=True) | {f"/{BROKEN}": Answer(picture(BROKEN))}
    third = first.again(tmp_path / "third", of=second, inputs=(str(first.root), second, THIS_RUN))
    first.server.answers = answers(well=True)
    assert listed(third)["pair_id"].to_pylist() == ids(BROKEN)
    assert CorpusReader(third).rows == 2 * (ROWS - len(GONE))
    assert source_lists(third) == source_lists(str(first.root))
    assert source_lists(third).keys() == {"a", "b"}


@pytest.mark.parametrize("shard_size", [1, 6, 1000])
def test_old_shards_are_grouped_in_order_to_about_the_size_asked_for(
    shard_size: int, first: First, tmp_path: Path
) -> None:
    execute(tmp_path, ingest_stages(second_pass(str(first.root), shard_size)))
    whole = Whole.open(str(tmp_path), "ingest_rows")
    groups = [params["shards"] for _, params in whole.plan().shards]
    failed = {"000000": 1, "000001": 4, "000002": 1, "000003": 1, "000004": 1}  # of b; shard 3 holds BROKEN
    both = failed | {f"{int(shard) + 5:06d}": rows for shard, rows in failed.items()}
    assert [shard for group in groups for shard in group] == list(both)
    sizes = [sum(both[shard] for shard in group) for group in groups]
    assert sizes == [summary.rows_out for summary in whole.shards.values()]
    assert all(size <= max(shard_size, 4) for size in sizes)
    assert all(size + following > shard_size for size, following in zip(sizes, sizes[1:], strict=False))
    assert listed(tmp_path)["pair_id"].to_pylist() == ids(*BUSY, BROKEN)


def test_the_reasons_may_be_told(first: First, tmp_path: Path) -> None:
    root = first.again(tmp_path, reasons=["http_client_error", "dns"])
    assert listed(root)["pair_id"].to_pylist() == ids(*GONE)


def test_a_shard_that_was_given_up_is_fetched_too(first: First, tmp_path: Path) -> None:
    download = Breaking(first.download())
    stages = [*ingest_stages(first.recipe), download]
    execute(tmp_path / "first", stages, accept_failed=True)
    assert Whole.open(str(tmp_path / "first"), "download").manifest.shards["000001"].empty
    execute(tmp_path / "second", ingest_stages(second_pass(str(tmp_path / "first"), reasons=["shard_failed"])))
    assert listed(tmp_path / "second")["pair_id"].to_pylist() == [f"b-{row:010d}" for row in range(4, 8)]


def test_the_first_pass_may_stand_on_a_base(first: First, tmp_path: Path) -> None:
    stages = [*ingest_stages(first.recipe), Download(first.download())]
    execute(tmp_path / "on base", stages, Base(root=str(first.root)))
    assert not (tmp_path / "on base" / "download" / "commits").exists()
    execute(tmp_path / "again", ingest_stages(second_pass(str(tmp_path / "on base"))))
    assert listed(tmp_path / "again")["pair_id"].to_pylist() == ids(*BUSY, BROKEN)


def test_a_second_pass_over_other_lists_of_the_same_name_is_refused(first: First, tmp_path: Path) -> None:
    other = write_text(tmp_path / "a.tsv", f"another list\t{first.server.base_url}/1\n")
    root = first.crawl(tmp_path / "other", recipe_of({"name": "a", "preset": "cc3m", "files": [other]}))
    with pytest.raises(InputError, match="source a is made of other lists in this than in"):
        first.again(tmp_path / "again", inputs=(root, THIS_RUN))


def test_nothing_starts_where_nothing_is_left_or_the_first_pass_is_not_whole(first: First, tmp_path: Path) -> None:
    nothing = second_pass(str(first.root), reasons=["dns"])
    told = f"{first.root} has nothing to fetch again: no row of its download was rejected for dns. Its rejects are: "
    assert [fault.startswith(told) for fault in check_sources(nothing)] == [True]
    assert "http_server_error 16, http_client_error 4" in check_sources(nothing)[0]
    with pytest.raises(InputError, match="nothing to fetch again"):
        execute(tmp_path / "again", ingest_stages(nothing))
    assert not (tmp_path / "again").exists()
    assert check_sources(second_pass(str(first.root))) == []
    (fault,) = check_sources(second_pass(str(tmp_path / "nowhere")))
    assert "nowhere/ingest_rows is not whole" in fault


class Job(Section):
    ingest: IngestRecipe


@pytest.mark.parametrize(
    ("sources", "told"),
    [
        (["{preset: rejects}"], "ingest.sources.0.root: Field required"),
        (["{preset: rejects, root: r, files: [x]}"], "ingest.sources.0.files is not a setting"),
        (["{preset: rejects, root: r, reasons: [bad_url]}"], "bad_url is no reason of download, which has address_ref"),
        (["{preset: rejects, root: r, reasons: [duplicate]}"], "duplicate is no reason of download"),
        (["{preset: rejects, root: r, reasons: []}"], "ingest.sources.0.reasons: .* at least 1 item"),
        (["{preset: rejects, root: r}", "{name: a, preset: cc3m, files: [x]}"], "preset rejects stands alone"),
        (["{preset: rejects, root: r}", "{preset: rejects, root: s}"], "preset rejects stands alone"),
        (["{preset: cc3m, files: [x]}"], "ingest.sources.0.name: Field required"),
        (["{nam: a, name: a, preset: cc3m, files: [x]}"], "sources.0.nam is not a setting; did you mean .*name"),
    ],
)
def test_a_wrong_source_is_named_as_any_setting_is(sources: Sequence[str], told: str, tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_text(f"ingest: {{sources: [{', '.join(sources)}]}}")
    with pytest.raises(RecipeError, match=told):
        load_recipe(Job, path)


def test_the_recipe_reads_back_with_its_reasons_in_full(tmp_path: Path) -> None:
    recipe = Job(ingest=second_pass("runs/first"))
    path = tmp_path / "job.yaml"
    path.write_text(dump_recipe(recipe))
    assert load_recipe(Job, path) == recipe
    assert recipe.ingest.second_pass is not None
    assert set(recipe.ingest.second_pass.reasons) == TRANSIENT >= {Reason.SHARD_FAILED}
