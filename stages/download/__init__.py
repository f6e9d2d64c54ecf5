"""Fetch the pictures of a url shard and store them small.

Reads   ingest_rows: a shard of urls (schema URLS), or of pictures that lie in local files and tars
Writes  images: webdataset's tar in row order: key.jpg, key.txt, key.json of each success
        pairs: DOWNLOADED, one row an input row, failed ones too (img2dataset's table and more)
Rejects the network's and the bytes' reasons of pipeline/reasons.py
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

from pipeline.commits import CommitRecord
from pipeline.reasons import Reason
from pipeline.recipe import Json
from pipeline.stage import Counts, Input, Resources, Stage
from pipeline.writer import ShardWriter, Task
from stages.download.health import ShardHealth, alarm
from stages.download.opt_outs import OptOuts
from stages.download.recipe import DownloadRecipe

if TYPE_CHECKING:
    from stages.download.images import Stored

__all__ = ["Download", "DownloadRecipe", "bodies_of", "check_urls", "stored_picture"]


@dataclass(frozen=True)
class Download(Stage[None]):
    """Raises RecipeError where the list of opt-outs cannot be read: once, here, so no worker needs it."""

    recipe: DownloadRecipe
    opt_outs: OptOuts = field(init=False)
    name, version, sharing = "download", 1, True

    def __post_init__(self) -> None:
        object.__setattr__(self, "opt_outs", OptOuts.load(self.recipe.opt_out))

    @property
    def inputs(self) -> Sequence[Input]:
        return (Input("ingest_rows"),)

    @property
    def resources(self) -> Resources:
        return Resources(cpus=1, memory_gib=2, workers=self.recipe.workers)

    def settings(self) -> Mapping[str, Json]:
        return self.recipe.of_the_result()

    def conditions(self) -> Mapping[str, Json]:
        """A list of opt-outs counts by its checksum: it may be long."""
        stated = self.recipe.model_dump(mode="json", exclude={*self.settings(), "opt_out"})
        return {**stated, "opt_out": self.opt_outs.checksum}

    def alarm(self, ended: Sequence[CommitRecord | Exception]) -> str:
        return alarm(ended, self.recipe)

    def pair_ids(self, task: Task) -> list[str]:
        return cast(list[str], task.read("ingest_rows").table("urls", ["pair_id"])["pair_id"].to_pylist())

    def process(self, task: Task, out: ShardWriter, state: None) -> Counts:
        from stages.download.engines import engine
        from stages.download.images import Stored
        from stages.download.layout import ShardLayout
        from stages.download.request import FetchLimits

        rows = task.read("ingest_rows").table("urls").to_pylist()
        limits = FetchLimits(**self.recipe.of_a_request(), opt_outs=self.opt_outs, share=task.share)
        fetch, make = engine(self.recipe, limits)
        health = ShardHealth(self.recipe.max_transient)
        with ShardLayout(out, rows) as layout:
            for fetched in fetch(rows):
                health.count(fetched)
                made = fetched if fetched.body is None else make(fetched.body)
                if isinstance(made, Stored):
                    layout.succeed(fetched, made)
                else:
                    assert made.reason is not None, "what has no body has a reason"
                    layout.fail(fetched, made.reason, made.detail)
            health.judge()
        return Counts(len(rows), layout.num_stored, {"fetched_bytes": layout.fetched_bytes})


def check_urls(urls: Sequence[str], recipe: DownloadRecipe) -> str:
    """What to expect of a list, told by some of its urls; empty: there are none.

    Raises InputError where a run would stop soon after its start.
    """
    from stages.download.forecast import forecast

    return str(forecast(urls, recipe)) if urls else ""


def bodies_of(urls: Sequence[str], recipe: DownloadRecipe) -> list[bytes | str]:
    """Of every url what it gave, or why it gave nothing: fetched within the bounds of a crawl, as politely."""
    from stages.download.fetch import fetch_all
    from stages.download.request import FetchLimits

    limits = FetchLimits(**recipe.of_a_request(), opt_outs=OptOuts.load(recipe.opt_out))
    found = {each.index: each.body or f"{each.reason}: {each.detail}" for each in fetch_all(urls, limits)}
    return [found[index] for index in range(len(urls))]


def stored_picture(body: bytes, recipe: DownloadRecipe, refuse: Callable[[Reason, str], None]) -> "Stored | None":
    """What the stage would store of a picture that was fetched; None: nothing, and `refuse` was told why."""
    from stages.download.engines import maker
    from stages.download.images import Stored

    made = maker(recipe)(body)
    if isinstance(made, Stored):
        return made
    refuse(made.reason, made.detail)
    return None
