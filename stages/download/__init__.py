"""Fetch the pictures of a url shard and store them small.

Reads   ingest_rows: a shard of urls (schema URLS), or of pictures that lie in local files and tars
Writes  images: webdataset's tar in row order: key.jpg, key.txt, key.json of each success
        pairs: DOWNLOADED, one row an input row, failed ones too (img2dataset's table and more)
Rejects the network's and the bytes' reasons of pipeline/reasons.py
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.reasons import Reason
from pipeline.recipe import Json
from pipeline.stage import Counts, Input, Resources, Stage
from pipeline.writer import ShardWriter, Task
from stages.download.recipe import DownloadRecipe

__all__ = ["Download", "DownloadRecipe"]

OF_THE_RESULT = {"size_px", "jpeg_quality", "max_pixels"}


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

    def process(self, task: Task, out: ShardWriter, state: None) -> Counts:
        from stages.download.images import ImageRule, Stored, store
        from stages.download.layout import ShardLayout

        rows = task.read("ingest_rows").table("urls").to_pylist()
        rule = ImageRule(self.recipe.size_px, self.recipe.jpeg_quality, self.recipe.max_pixels)
        with ShardLayout(out, rows) as layout:
            for fetched in self._bodies(rows):
                if fetched.body is None:
                    layout.fail(fetched, fetched.reason or Reason.CONNECTION, fetched.detail)
                    continue
                made = store(fetched.body, rule)
                if isinstance(made, Stored):
                    layout.succeed(fetched, made)
                else:
                    layout.fail(fetched, made.reason, made.detail)
        return Counts(len(rows), layout.num_stored, {"fetched_bytes": layout.fetched_bytes})

    def _bodies(self, rows: Sequence[Mapping[str, Any]]) -> Iterator[Any]:
        """Of every row once, in any order."""
        from stages.download.fetch import Fetched, fetch_all
        from stages.download.local import read_local
        from stages.download.request import FetchLimits

        limits = FetchLimits(
            deadline_s=self.recipe.deadline_s,
            max_bytes=self.recipe.max_bytes,
            max_redirects=self.recipe.max_redirects,
            retries=self.recipe.retries,
            backoff_s=self.recipe.backoff_s,
            connections=self.recipe.connections,
            connections_per_host=self.recipe.connections_per_host,
            allow=frozenset(self.recipe.allow),
            respect_opt_out=self.recipe.respect_opt_out,
            contact=self.recipe.contact,
        )
        yield from read_local(rows, limits.max_bytes)
        remote = [index for index, row in enumerate(rows) if row["local_path"] is None]
        for fetched in fetch_all([rows[index]["url"] for index in remote], limits):
            yield Fetched(**{**vars(fetched), "index": remote[fetched.index]})
