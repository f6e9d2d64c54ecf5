"""Fetch the pictures of a url shard and store them small.

Reads   ingest_rows: a shard of urls (schema URLS), or of pictures that lie in local files and tars
Writes  images: webdataset's tar in row order: key.jpg, key.txt, key.json of each success
        pairs: DOWNLOADED, one row an input row, failed ones too (img2dataset's table and more)
Rejects the network's and the bytes' reasons of pipeline/reasons.py
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from pipeline.recipe import Json
from pipeline.stage import Counts, Input, Resources, Stage
from pipeline.writer import ShardWriter, Task
from stages.download.recipe import OF_THE_RESULT, DownloadRecipe

__all__ = ["Download", "DownloadRecipe"]


@dataclass(frozen=True)
class Download(Stage[None]):
    recipe: DownloadRecipe
    name, version = "download", 1

    @property
    def inputs(self) -> Sequence[Input]:
        return (Input("ingest_rows"),)

    @property
    def resources(self) -> Resources:
        return Resources(cpus=1, memory_gib=2)

    def settings(self) -> Mapping[str, Json]:
        return self.recipe.model_dump(mode="json", include=OF_THE_RESULT)

    def conditions(self) -> Mapping[str, Json]:
        return self.recipe.model_dump(mode="json", exclude=OF_THE_RESULT)

    def pair_ids(self, task: Task) -> list[str]:
        return cast(list[str], task.read("ingest_rows").table("urls", ["pair_id"])["pair_id"].to_pylist())

    def process(self, task: Task, out: ShardWriter, state: None) -> Counts:
        from stages.download.images import ImageRule, Stored, store
        from stages.download.layout import ShardLayout
        from stages.download.native import bodies

        rows = task.read("ingest_rows").table("urls").to_pylist()
        rule = ImageRule(self.recipe.size_px, self.recipe.jpeg_quality, self.recipe.max_pixels)
        with ShardLayout(out, rows) as layout:
            for fetched in bodies(rows, self.recipe):
                made = fetched if fetched.body is None else store(fetched.body, rule)
                if isinstance(made, Stored):
                    layout.succeed(fetched, made)
                else:
                    assert made.reason is not None, "what has no body has a reason"
                    layout.fail(fetched, made.reason, made.detail)
        return Counts(len(rows), layout.num_stored, {"fetched_bytes": layout.fetched_bytes})
