"""What the models are trained and asked with: runs below one root, each of the stages that its job has.

world              the lists that a world draws
encoder            what pictures are looked up by, where the recipe trains one
tower              what the models see with, likewise
own, other, both   corpora with an index each; both: the two as one
test               a corpus, one pair a reference
neighbors          of own's pairs in own · text: of both's pairs in both, the documents of stage language
five, patches      five-pair samples and patch tokens of own
examples           of every test picture the pictures of own that are nearest
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from demo.encoder import TrainEncoder
from demo.recipe import EncoderRecipe
from demo.worlds import CAPTIONS, PARTS, DrawWorld, Part
from model.training.encoders import EncoderRecipe as ImageEncoder
from model.training.patches import Patches, PatchesRecipe
from pipeline.commits import Whole
from pipeline.errors import RecipeError, ShardFailed
from pipeline.recipe import dump_recipe
from pipeline.run import Base, Run, RunRecipe, executor_for
from pipeline.stage import Stage
from stages.download import Download, DownloadRecipe
from stages.embed import Embed, EmbedRecipe
from stages.filter import FilterRecipe, Thresholds, filter_stages
from stages.index import IndexRecipe, index_stages
from stages.ingest import IngestRecipe, check_sources, ingest_stages
from stages.interleave import FewshotRecipe, fewshot_stages, interleave_stages
from stages.neighbors import NeighborsRecipe, neighbor_stages
from trials.results.recipe import DATABASES, ResultsRecipe

ALL_PASS = Thresholds(min_clip_score=None, min_short_side_px=None, max_aspect=None, text=None)
"""A captioning set is taken as it is."""


class CorpusRun(RunRecipe):
    """As jobs/build_index.py reads it: the recipe that stands beside a corpus says which model made its vectors."""

    base: Base | None = None
    encoder: EncoderRecipe | None = None
    ingest: IngestRecipe | None = None
    download: DownloadRecipe
    embed: EmbedRecipe
    filter: FilterRecipe
    index: IndexRecipe | None  # None: the run ends with the corpus

    def stages(self) -> list[Stage[Any]]:
        stages: list[Stage[Any]] = [TrainEncoder(self.encoder)] if self.encoder else []
        if self.ingest:
            stages += [*ingest_stages(self.ingest), Download(self.download), Embed(self.embed)]
        stages += filter_stages(self.filter, self.download, self.embed)
        return [*stages, *(index_stages(self.index) if self.index else [])]


@dataclass(frozen=True)
class Roots:
    recipe: ResultsRecipe

    def make(self) -> None:
        """Whatever is not there yet, in order. Raises as the stages do, ShardFailed where a run does not end whole."""
        recipe, place = self.recipe, self.recipe.place
        if recipe.world:
            self.finish("world", [DrawWorld(recipe.world)])
        if recipe.encoder:
            self.finish("encoder", [TrainEncoder(recipe.encoder)])
        if recipe.tower:
            self.finish("tower", [TrainEncoder(recipe.tower)])
        for part in PARTS:
            self._corpus(part, ingest=self._lists(part))
        self._corpus("both", inputs=(place("own"), place("other")))
        found = NeighborsRecipe(k=recipe.neighbors)
        self.finish("neighbors", neighbor_stages(found, place("own")))
        if recipe.training.language:
            self.finish("text", neighbor_stages(found, place("both")))
        if recipe.training.pretrain.fives:
            mined = recipe.interleave.model_copy(update={"neighbors": place("neighbors"), "materialize": False})
            self.finish("five", interleave_stages(mined, [place("own")]))
        if recipe.cache_patches:
            tower = PatchesRecipe(**image_encoder(recipe).model_dump(), device=recipe.embed.device)
            self.finish("patches", [Patches.of(tower, place("own"))])
        if shots := tuple(number for number in recipe.shots if number):
            self.finish("examples", fewshot_stages(FewshotRecipe(shots=shots), [place("own")], place("test")))

    def finish(self, name: str, stages: Sequence[Stage[Any]], base: Base | None = None, recipe: str = "") -> None:
        run = Run(self.recipe.place(name), stages, base, recipe)
        report = run.execute(executor_for(self.recipe.engine, self.recipe.cpus))
        if report.exit_code:
            raise ShardFailed(str(report))

    def _corpus(self, name: str, *, ingest: IngestRecipe | None = None, inputs: tuple[str, ...] = ()) -> None:
        recipe = self.recipe
        encoder = recipe.encoder if ingest else None
        run = CorpusRun(
            root=recipe.place(name),
            base=Base(root=recipe.place("encoder")) if encoder else None,
            encoder=encoder,
            ingest=ingest,
            download=recipe.download,
            embed=recipe.embed,
            filter=FilterRecipe(inputs=inputs, defaults=ALL_PASS, shard_rows=recipe.shard_rows),
            index=recipe.index if name in DATABASES else None,
        )
        self.finish(name, run.stages(), run.base, dump_recipe(run))

    def _lists(self, part: Part) -> IngestRecipe:
        """Raises RecipeError with every fault of the lists."""
        given: IngestRecipe | None = getattr(self.recipe, part)
        lists = given or self._drawn(part)
        if faults := check_sources(lists):
            raise RecipeError("\n".join(f"{part}: {fault}" for fault in faults))
        return lists

    def _drawn(self, part: Part) -> IngestRecipe:
        captions = Whole.open(self.recipe.place("world"), DrawWorld.name).read(part).path(CAPTIONS)
        source = {"name": part, "preset": "coco", "files": [str(captions)], "folder": str(captions.parent)}
        return IngestRecipe.model_validate({"sources": [source], "duplicates": "keep"})


def image_encoder(recipe: ResultsRecipe) -> ImageEncoder:
    """What the models see with."""
    return recipe.training.model.image_encoder or ImageEncoder(root=recipe.place("tower"))
