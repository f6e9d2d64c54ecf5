"""Refuse an index whose recall is below its floor; else write index.json, which makes the index usable.

Reads   the parts of the index, and what index_report measured
Writes  index: index.json (IndexFile)
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline.commits import Whole
from pipeline.errors import ShardFailed
from pipeline.recipe import Json
from pipeline.stage import Counts, Input, Need, Stage
from pipeline.writer import ShardWriter, Task
from stages.index.database import ONLY
from stages.index.index_file import IndexFile
from stages.index.parts import Parts, Wholes, described
from stages.index.recipe import IndexRecipe, IndexSettings
from stages.index.report import Tuned
from stages.index.tuning import TUNED_K

REPORT = "index_report"


@dataclass(frozen=True)
class IndexGate(Stage[None]):
    """A stage of its own, so that a report is there to look at when the gate is shut."""

    recipe: IndexRecipe
    parts: Parts = Parts()
    name, version = "index_gate", 1

    @property
    def inputs(self) -> Sequence[Input]:
        return [*self.parts.inputs, Input(REPORT, Need.WHOLE)]

    def settings(self) -> Mapping[str, Json]:
        return {}

    def conditions(self) -> Mapping[str, Json]:
        """The floor decides whether there is a result, and no byte of it: it may be lowered on the same root. Raised,
        it asks nothing of a stage that is finished or taken from a base: jobs call refuse_below_floor."""
        return self.recipe.model_dump(include={"min_recall", "gated"})

    def process(self, task: Task, out: ShardWriter, state: None) -> Counts:
        whole: Wholes = {source.key: task.whole(source.key) for source in self.inputs}
        tuned = refuse_below_floor(whole[REPORT], self.recipe)
        train = whole[self.parts.template.key]
        index = IndexFile(
            factory=tuned.factory,
            nlist=tuned.nlist,
            metric="inner_product",
            key=self.recipe.key,
            rows=tuned.rows,
            template=described(self.parts.template, whole),
            template_sha256=train.read(ONLY).record.files["template"].sha256,
            serving=self.parts.serving_parts(whole),
            alive=described(self.parts.alive, whole) if self.parts.alive else None,
            corpora=self.parts.corpus_parts(whole),
            tuned={direction: tuned.setting(direction) for direction in tuned.chosen},
            recall=tuned.recall,
        )
        out.json("index", "index_{stem}.json", index.model_dump(mode="json"))
        metrics = {f"{direction}_recall": point["recall"] for direction, point in tuned.chosen.items()}
        return Counts(tuned.rows, tuned.rows, metrics)


def refuse_below_floor(report: Whole, settings: IndexSettings) -> Tuned:
    """What index_report measured. Raises ShardFailed where it is not enough."""
    with report.read(ONLY).open("tuned") as file:
        tuned = Tuned.model_validate_json(file.read())
    floor = settings.min_recall
    for direction in settings.gated:
        point = tuned.chosen[direction]
        if floor is not None and point["recall"] < floor:
            raise ShardFailed(
                f"index: recall@{TUNED_K} of {tuned.queries:,} {direction} queries is at best "
                f"{point['recall']:.4f} ({point['low']:.3f} to {point['high']:.3f}), at nprobe {point['nprobe']} "
                f"(at most {tuned.most_probes}) and depth {point['depth']}, below index.min_recall {floor}; "
                f"coverage there is {point['coverage']:.4f}. {_knob(point)}, or lower index.min_recall (null: no "
                f"floor). All that was measured stands in {report.folder.root}/{REPORT}."
            )
    return tuned


def _knob(point: Mapping[str, Json]) -> str:
    if point["coverage"] < point["recall"] + 0.01:
        return "The probed lists do not hold the neighbours: build it with fewer, larger lists (index.nlist)"
    return "The codes lose what the lists hold: build it with longer ones (index.factory IVF…,PQ128 or IVF…,SQ8)"
