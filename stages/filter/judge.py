"""Keep the pairs whose picture, caption and score are good enough for their source.

Reads    download: one row per input row; embed: the rows whose picture could be embedded, in the same order
Writes   judged: the kept rows in that order (JUDGED)
         hits, where there are evaluation sets: whose pictures the pairs show that left for it (EVALUATION_HITS)
Rejects  one reason a row, the first that applies: removed_on_request, evaluation_picture, small_image, extreme_aspect,
         nsfw, watermark, the caption_… reasons in the order of text_rules.RULES, low_clip_score. The score comes last,
         so that its count is what that threshold alone costs.
Source   Re-ViLM §4.1: low CLIP score and irregular text are filtered; the thresholds are ours.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import ClassVar, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.commits import Committed, Whole
from pipeline.errors import InputError
from pipeline.reasons import Reason
from pipeline.recipe import Json
from pipeline.schemas import EVALUATION_HITS, JUDGED
from pipeline.stage import Counts, Input, Need, Plan, Resources, Shard, Stage, shard_id
from pipeline.writer import ShardWriter, Task
from stages.filter.evaluation_match import hits
from stages.filter.exclusions import Exclusions
from stages.filter.inputs import input_key, refuse_unlike, whole_inputs
from stages.filter.recipe import FilterRecipe, Thresholds
from stages.filter.rules import Fault, Pair, Rule, first_fault
from stages.filter.text_rules import RULES as TEXT_RULES
from stages.filter.text_rules import caption_reason


def short_side_px(pair: Pair) -> int:
    return min(pair["original_width"], pair["original_height"])


def aspect(pair: Pair) -> float:
    return max(pair["original_width"], pair["original_height"]) / short_side_px(pair)


def nsfw(pair: Pair) -> float | None:
    return pair["nsfw"]


def watermark(pair: Pair) -> float | None:
    return pair["watermark"]


def clip_score(pair: Pair) -> float:
    return pair["clip_score"]


PICTURE_RULES = (
    Rule(Reason.SMALL_IMAGE, "min_short_side_px", short_side_px),
    Rule(Reason.EXTREME_ASPECT, "max_aspect", aspect),
    Rule(Reason.NSFW, "max_nsfw", nsfw),
    Rule(Reason.WATERMARK, "max_watermark", watermark),
)
SCORE_RULES = (Rule(Reason.LOW_CLIP_SCORE, "min_clip_score", clip_score),)


def fault_of(pair: Pair, thresholds: Thresholds) -> Fault | None:
    """The first rule that the pair breaks, in the order that this module states."""
    return (
        first_fault(PICTURE_RULES, thresholds, pair)
        or (caption_reason(pair["caption"], thresholds.text) if thresholds.text else None)
        or first_fault(SCORE_RULES, thresholds, pair)
    )


@dataclass(frozen=True)
class Judge(Stage[None]):
    """A shard a download shard; of several roots, all their shards one after another."""

    recipe: FilterRecipe
    exclusions: Exclusions

    name: ClassVar[str] = "filter_judge"
    version: ClassVar[int] = 1

    @property
    def inputs(self) -> Sequence[Input]:
        sets = [Input("evaluation_sets", Need.WHOLE)] if self.recipe.evaluation_sets else []
        if not self.recipe.inputs:
            return [Input("download"), Input("embed"), *sets]
        crawls = [source for stage in ("download", "embed") for source in whole_inputs(stage, self.recipe.inputs)]
        return [*crawls, *sets]

    @property
    def resources(self) -> Resources:
        return Resources(memory_gib=1)

    def settings(self) -> Mapping[str, Json]:
        """A list of exclusions counts by its checksum: it may be long, and names what is to be forgotten."""
        decide = {"defaults", "sources"} | ({"evaluation_rule"} if self.recipe.evaluation_sets else set())
        values: dict[str, Json] = self.recipe.model_dump(mode="json", include=decide)
        return {**values, "exclude": self.exclusions.checksum}

    def plan(self, whole: Mapping[str, Whole]) -> Plan:
        roots = self.recipe.inputs
        refuse_unlike(roots, whole)
        read = [
            {"input": number, "shard": shard}
            for number in range(len(roots))
            for shard in whole[input_key("embed", roots, number)].shards
        ]
        return Plan([Shard(shard_id(number), params) for number, params in enumerate(read)])

    def pair_ids(self, task: Task) -> list[str]:
        _, _, embedded = self._read(task)
        return cast(list[str], embedded.table("pairs", ["pair_id"])["pair_id"].to_pylist())

    def process(self, task: Task, out: ShardWriter, state: None) -> Counts:
        number, downloaded, embedded = self._read(task)
        pairs = joined(downloaded, embedded, number)
        shown = self._evaluation_hits(task, out, pairs, embedded)
        kept = []
        for row, pair in enumerate(pairs.to_pylist()):
            fault = self.exclusions.fault(pair) or shown.get(row)
            fault = fault or fault_of(pair, self.recipe.thresholds(pair["source"]))
            if fault is None:
                kept.append(row)
            else:
                out.reject(pair["pair_id"], *fault)
        judged = pairs.take(pa.array(kept, pa.int64())).select(JUDGED.names).cast(JUDGED)
        out.table("judged", "{stem}.parquet", judged)
        return Counts(rows_in=pairs.num_rows, rows_out=judged.num_rows)

    def _evaluation_hits(self, task: Task, out: ShardWriter, pairs: pa.Table, embedded: Committed) -> dict[int, Fault]:
        """Row → why it leaves; a pair that was removed on request is not told again."""
        if not self.recipe.evaluation_sets:
            return {}
        found = hits(pairs, embedded.array("img_emb"), task.whole("evaluation_sets"), self.recipe.evaluation_rule)
        found = [hit for hit in found if not self.exclusions.fault(pairs.slice(hit.row, 1).to_pylist()[0])]
        rows = [{"pair_id": pairs["pair_id"][hit.row].as_py(), **asdict(hit)} for hit in found]
        out.table("hits", "hits_{stem}.parquet", pa.Table.from_pylist(rows, schema=EVALUATION_HITS))
        return {hit.row: (Reason.EVALUATION_PICTURE, str(hit)) for hit in reversed(found)}

    def _read(self, task: Task) -> tuple[int, Committed, Committed]:
        """The input's number, and the two shards of one download shard."""
        roots = self.recipe.inputs
        if not roots:
            return 0, task.read("download"), task.read("embed")
        number, shard = task.params["input"], task.params["shard"]
        downloaded, embedded = (task.whole(input_key(stage, roots, number)) for stage in ("download", "embed"))
        return number, downloaded.read(shard), embedded.read(shard)


def joined(downloaded: Committed, embedded: Committed, number: int) -> pa.Table:
    """One row an embedded pair, in embed's order: JUDGED's columns and those that only the rules read.

    Raises InputError where embed holds a pair that download does not.
    """
    ours = embedded.table("pairs")
    all_rows = downloaded.table("pairs")
    found = pc.index_in(ours["pair_id"], value_set=all_rows["key"])
    if found.null_count:
        lost = ours.filter(pc.is_null(found))["pair_id"][0]
        raise InputError(f"{embedded.folder.root}/embed shard {embedded.shard} holds {lost}, which download does not")
    theirs = all_rows.take(found)
    columns = {
        **{name: theirs[name] for name in JUDGED.names if name in theirs.column_names},
        **{name: theirs[name] for name in ("original_width", "original_height", "nsfw", "watermark")},
        **{name: ours[name] for name in ours.column_names},
        "offset": theirs["image_offset"],
        "bytes": theirs["image_bytes"],
        "input": pa.repeat(pa.scalar(number, pa.int32()), ours.num_rows),
        "shard": pa.repeat(downloaded.shard, ours.num_rows),
        "embedded_row": pa.array(np.arange(ours.num_rows, dtype=np.int32)),
    }
    return pa.table(columns)


SETTING_OF = {
    Reason.REMOVED_ON_REQUEST: "filter.exclude",
    Reason.EVALUATION_PICTURE: "filter.evaluation_sets",
    **{rule.reason: f"filter.defaults.{rule.setting}" for rule in (*PICTURE_RULES, *SCORE_RULES)},
    **{rule.reason: f"filter.defaults.text.{rule.setting}" for rule in TEXT_RULES},
    Reason.CAPTION_BOILERPLATE: "filter.defaults.text.boilerplate",
    Reason.PLACEHOLDER: "filter.placeholders",
    Reason.DUPLICATE: "filter.duplicates",
}
"""Where a recipe says how much of a reason's rows leave."""
