"""What the interleave stages told of the band, of the samples and of their supports. Empty where a run has none."""

import polars as pl
import pyarrow as pa

from pipeline.commits import Committed
from pipeline.schemas import BAND, FIGURES, HUBS
from stages.report.cells import shortened
from stages.report.recall import only_shard
from stages.report.root import RunRoot, scan

GATE, REPORT = "interleave_gate", "interleave_report"
PLOTS = (
    (GATE, "plot", "distances of images and the band, as the probe saw them"),
    (REPORT, "plot", "captions and images of the supports, and how often a pair is one"),
    (REPORT, "contact_sheet", "samples to judge by eye"),
)
"""Stage, file and what it shows."""
CAPTION = 80  # letters shown


def band(run: RunRoot) -> pl.DataFrame:
    """A row a reading of a distance; pairs: in the band of a query, with the 95 % interval of their mean."""
    return _table(run, GATE, "band", BAND)


def figures(run: RunRoot) -> pl.DataFrame:
    """Counted over the whole run; those with low and high are estimates, with their 95 % interval."""
    return _table(run, REPORT, "figures", FIGURES)


def hubs(run: RunRoot) -> pl.DataFrame:
    """The pairs that are a support most often, and in how many samples."""
    found = _table(run, REPORT, "hubs", HUBS)
    captions = [shortened(caption, CAPTION) for caption in found["caption"]]
    return found.with_columns(caption=pl.Series(captions, dtype=pl.String))


def _table(run: RunRoot, stage: str, name: str, schema: pa.Schema) -> pl.DataFrame:
    shard = only_shard(run, stage)
    return scan([str(shard.path(name))] if shard else [], schema).collect()


def plots(run: RunRoot) -> list[tuple[str, Committed, str]]:
    """Of every picture that was made: what it shows, and in which shard it is called what."""
    made = [(told, only_shard(run, stage), name) for stage, name, told in PLOTS]
    return [(told, shard, name) for told, shard, name in made if shard]


def pictures(run: RunRoot) -> pl.DataFrame:
    """What each shows, and where it lies."""
    rows = [(told, f"{shard.folder.store.root}/{shard.entry(name).path}") for told, shard, name in plots(run)]
    return pl.DataFrame(rows, schema={"picture": pl.String, "path": pl.String}, orient="row")
