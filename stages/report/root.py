"""What a run root holds, whole or not: of every stage the committed shards, and their tables as polars frames."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import cast

import polars as pl
import pyarrow as pa
import yaml

from pipeline import schemas
from pipeline.commits import STATS, CommitRecord, Committed, StageFolder, StagePlan, resolve_folder
from pipeline.errors import InputError
from pipeline.ledger import stats_row
from pipeline.recipe import Json
from pipeline.schemas import DOWNLOADED, EMBEDDED, JUDGED, PAIRS, REJECTS, URLS
from pipeline.storage import open_store
from stages.filter import THIS_RUN

NEIGHBORS = ("neighbor_keys", "neighbors")
SAMPLES = (
    "interleave_keys",
    "interleave_probe",
    "interleave_gate",
    "interleave_mine",
    "interleave_neighbors",
    "interleaved",
    "interleave_report",
)
OF_MODELS = (  # of roots of jobs/cache_patches.py, make_fewshot.py, caption.py and evaluate.py
    "patches",
    "fewshot_keys",
    "fewshot",
    "pictures",
    "captions",
    "evaluation_matches",
    "evaluation_answers",
    "evaluation_scores",
    "evaluation_page",
    "encoder_classes",
    "encoder_scores",
)
STAGES = (
    "encoder",
    "ingest_count",
    "ingest_keys",
    "ingest_duplicates",
    "ingest_rows",
    "download",
    "embed",
    "evaluation_sets",
    "filter_judge",
    "filter_duplicates",
    "corpus",
    "index_train",
    "index_alive",
    "index_add",
    "index",
    "index_report",
    "index_gate",
    *NEIGHBORS,
    *SAMPLES,
    *OF_MODELS,
)
"""In the order in which they read one another."""

TABLES = {
    "ingest_rows": ("urls", URLS),
    "download": ("pairs", DOWNLOADED),
    "embed": ("pairs", EMBEDDED),
    "filter_judge": ("judged", JUDGED),
    "corpus": ("metadata", PAIRS),
}
"""Of each stage that writes one row a pair: what its commit records call the table, and its columns."""

BEFORE_THE_FILTER = ("ingest_count", "ingest_rows", "download", "embed")
OF_A_CRAWL = ("download", "embed")
RECIPES = ("recipe.yaml", "interleave.yaml")
"""Of the job that made the corpus, else of the one that mined others' corpora."""


@dataclass(frozen=True)
class StageFiles:
    """A stage, as far as it is committed."""

    folder: StageFolder  # where it lies: the root, or the one it was taken from
    plan: StagePlan

    @cached_property
    def whole(self) -> bool:
        return self.folder.manifest() is not None

    @cached_property
    def records(self) -> Sequence[CommitRecord]:
        """Of the committed shards, in shard order."""
        done = self.folder.committed()
        with ThreadPoolExecutor(16) as pool:
            return list(pool.map(self.folder.record, [shard for shard, _ in self.plan.shards if shard in done]))

    @cached_property
    def stats(self) -> pl.DataFrame:
        """One row a committed shard, with the columns of STATS that are counted here."""
        if self.whole:
            with self.folder.store.open(STATS) as file:
                return pl.read_parquet(file)
        rows = [stats_row(record) for record in self.records]
        return cast(pl.DataFrame, pl.from_arrow(pa.Table.from_pylist(rows, schema=schemas.STATS)))

    def committed(self) -> list[Committed]:
        """Those that hold files: a failed shard that was accepted has none."""
        return [Committed(self.folder, record) for record in self.records if record.files]

    def rejects(self) -> pl.LazyFrame:
        """Schema REJECTS."""
        entries = [record.rejects_file for record in self.records if record.rejects_file]
        return scan([str(self.folder.store.local(entry.path, entry.sha256)) for entry in entries], REJECTS)


@dataclass(frozen=True)
class RunRoot:
    root: str

    @cached_property
    def stages(self) -> Mapping[str, StageFiles]:
        """Those with a shard committed, in order. Raises InputError where there is none."""
        found = {name: stage for name in STAGES if (stage := self._find(name))}
        if not found:
            raise InputError(f"{self.root} holds no committed shard of any stage ({', '.join(STAGES)})")
        return found

    def _find(self, name: str) -> StageFiles | None:
        folder = resolve_folder(self.root, name)
        plan = folder.plan()
        return StageFiles(folder, plan) if plan and folder.committed() else None

    @cached_property
    def recipe(self) -> Mapping[str, Json]:
        """As resolved by the job; empty where the run has none."""
        store = open_store(self.root)
        name = next((name for name in RECIPES if store.size(name)), None)
        return cast(dict[str, Json], yaml.safe_load(store.read(name))) if name else {}

    @cached_property
    def crawls(self) -> Sequence["RunRoot"]:
        """The runs whose pictures this one judges: itself, unless its recipe names others (and perhaps itself)."""
        inputs = self.recipe.get("filter", {}).get("inputs") or []
        return [self if root == THIS_RUN else RunRoot(root) for root in inputs] or [self]

    def table(self, stage: str) -> pl.LazyFrame:
        """What a stage of TABLES wrote so far, of download and embed that of every crawl."""
        crawls = self.crawls if stage in OF_A_CRAWL else [self]
        paths = [path for crawl in crawls for path in crawl.shards_by_path(stage)]
        return scan(paths, TABLES[stage][1])

    def shards_by_path(self, stage: str) -> dict[str, Committed]:
        """Where the table of each committed shard can be read."""
        name, found = TABLES[stage][0], self.stages.get(stage)
        return {str(shard.path(name)): shard for shard in found.committed()} if found else {}


def scan(paths: list[str], schema: pa.Schema) -> pl.LazyFrame:
    """The tables one after another; an empty one where there is none."""
    if paths:
        return pl.scan_parquet(paths)
    return cast(pl.DataFrame, pl.from_arrow(schema.empty_table())).lazy()
