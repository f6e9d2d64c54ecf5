"""Refuse a band that is nearly empty; else decide how it is mined.

Reads   interleave_probe
Writes  seen (Seen): what the probe saw, and what mining costs by engine · band (BAND): the same of each reading of a
        distance · plot: the histogram of distances with the band, and the sizes of the bands
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline.errors import RecipeError
from pipeline.recipe import Json
from pipeline.stage import Counts, Input, Need, Stage
from pipeline.writer import ShardWriter, Task
from stages.interleave.plot import save_probe_plot
from stages.interleave.probe import InterleaveProbe
from stages.interleave.recipe import InterleaveRecipe
from stages.interleave.seen import Seen


@dataclass(frozen=True)
class InterleaveGate(Stage[None]):
    """A stage of its own, so that what the probe saw is there to look at when the gate is shut."""

    recipe: InterleaveRecipe
    name, version = "interleave_gate", 2

    @property
    def inputs(self) -> Sequence[Input]:
        return [Input(InterleaveProbe.name, Need.WHOLE)]

    def settings(self) -> Mapping[str, Json]:
        """Told beside what the probe counted, which another band may have the same of."""
        return self.recipe.model_dump(include={"metric", "lo", "hi", "supports"})

    def conditions(self) -> Mapping[str, Json]:
        """Decides whether there is a result, and no byte of it: it may be raised on the same root."""
        return {"max_starved": self.recipe.max_starved}

    def process(self, task: Task, out: ShardWriter, state: None) -> Counts:
        probe = task.whole(InterleaveProbe.name)
        seen = Seen.of_probe(probe, self.recipe)
        if seen.starved.value > self.recipe.max_starved:
            raise RecipeError(
                f"interleave: {seen.starving}, more than interleave.max_starved {self.recipe.max_starved}. "
                f"{seen.advice()} All that was seen stands in {probe.folder.root}/{InterleaveProbe.name}."
            )
        out.json("seen", "seen_{stem}.json", seen.model_dump(mode="json"))
        out.table("band", "band_{stem}.parquet", seen.table())
        save_probe_plot(seen, probe.tables("band_sizes"), out.file("plot", "probe_{stem}.png"))
        return Counts(1, 1)
