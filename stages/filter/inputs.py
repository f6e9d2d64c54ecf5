"""Whose pairs are judged: this run's own, or those of several roots, numbered as the recipe lists them."""

from collections.abc import Mapping, Sequence

from pipeline.commits import Whole
from pipeline.errors import InputError
from pipeline.recipe import Json
from pipeline.stage import Input, Need
from stages.embed import OWN
from stages.filter.recipe import THIS_RUN
from stages.ingest import source_lists


def whole_inputs(stage: str, roots: Sequence[str]) -> list[Input]:
    """The stage of this run, or of every root."""
    if not roots:
        return [Input(stage, Need.WHOLE)]
    return [
        Input(stage, Need.WHOLE, None if root == THIS_RUN else root, input_key(stage, roots, number))
        for number, root in enumerate(roots)
    ]


def input_key(stage: str, roots: Sequence[str], number: int) -> str:
    return f"{number}.{stage}" if roots else stage


def refuse_unlike(roots: Sequence[str], whole: Mapping[str, Whole]) -> None:
    """Raises InputError where two roots cannot stand in one corpus: other embeddings, or one source from two lists."""
    twice = next((root for root in roots if roots.count(root) > 1), None)
    if twice:
        raise InputError(f"filter.inputs names {twice} twice; name every root once")
    _refuse_other_embeddings(roots, whole)
    _refuse_other_lists(roots, whole)


def _refuse_other_embeddings(roots: Sequence[str], whole: Mapping[str, Whole]) -> None:
    made = [whole[input_key("embed", roots, number)].plan().parts for number in range(len(roots))]
    for root, parts in zip(roots[1:], made[1:], strict=True):
        ours, theirs = (_meaning(part) for part in (made[0], parts))
        other = next((name for name in sorted(ours.keys() | theirs.keys()) if ours.get(name) != theirs.get(name)), None)
        if other:
            raise InputError(
                f"filter.inputs: embed.{other} is {ours.get(other)!r} in {roots[0]} and {theirs.get(other)!r} in "
                f"{root}, so their embeddings cannot be compared. Embed one of them again, or filter them apart."
            )


def _meaning(embedded: Mapping[str, Json]) -> dict[str, Json]:
    """Of a plan's parts, what decides what its vectors mean; weights: those that the run trained, unless it was given
    some."""
    return {"version": embedded["version"], "weights": embedded["inputs"].get(OWN), **embedded["settings"]}


def _refuse_other_lists(roots: Sequence[str], whole: Mapping[str, Whole]) -> None:
    """A pair_id means a row of its source's list, so one name must not stand for two lists."""
    first: dict[str, tuple[str, Json]] = {}
    for number, root in enumerate(roots):
        held_in = whole[input_key("download", roots, number)].folder.root if root == THIS_RUN else root
        for source, lists in source_lists(held_in).items():
            other, theirs = first.setdefault(source, (root, lists))
            if theirs != lists:
                raise InputError(
                    f"filter.inputs: source {source} is made of other lists in {root} than in {other} (their checksums "
                    "differ), so a pair_id would mean two pairs. Give one of them another name in ingest.sources."
                )
