"""What cannot be added to an index: pairs that it holds already, and vectors that cannot be compared with its own."""

from collections.abc import Iterator, Mapping, Sequence

from pipeline.commits import Whole, resolve_folder
from pipeline.errors import InputError
from stages.embed import OWN, Embed
from stages.filter import CorpusReader
from stages.index.alive import pair_ids_of
from stages.index.database import CORPUS
from stages.index.vectors import Key, Vectors


def refuse_unfit(roots: Sequence[str], held: Sequence[Whole], key: Key) -> None:
    """roots: whose corpora are to be added to the held ones.

    Raises InputError where a corpus is not whole or is empty, is held already or named twice, shares a pair id with
    another (deleted pairs too: what was removed on request does not come back unnoticed), or was embedded by another
    model. The pair ids of what is added are in memory meanwhile, about 100 bytes a pair.
    """
    known, added = list(held), []
    for root in roots:
        corpus = Whole.open(root, CORPUS)
        _refuse_held(root, corpus, known)
        _refuse_other_vectors(root, corpus, held[0], key)
        known.append(corpus)
        added.append(corpus)
    _refuse_shared_pairs(added, held)


def _refuse_held(root: str, corpus: Whole, known: Sequence[Whole]) -> None:
    same = next((other for other in known if other.identity == corpus.identity), None)
    if same:
        raise InputError(
            f"update.add: the corpus of {root} is that of {same.folder.root}, which the index holds or is given already"
        )
    if not corpus.rows:
        raise InputError(f"update.add: the corpus of {root} has no pair")


def _refuse_other_vectors(root: str, corpus: Whole, held: Whole, key: Key) -> None:
    theirs, ours = Vectors([corpus], key).width, Vectors([held], key).width
    if theirs != ours:
        raise InputError(f"update.add: the vectors of {root} are {theirs} wide, those of the index {ours}")
    (_, wanted), *_ = _models(held.folder.root)
    for run, model in _models(root):
        if model != wanted:
            raise InputError(
                f"update.add: the vectors of {root} were made in {run} by {_said(model)}, those of the index by "
                f"{_said(wanted)}, so they cannot be compared. Embed these pairs by the same model, or index them apart"
            )


def model_conflicts(roots: Sequence[str]) -> Iterator[str]:
    """A sentence where the corpora of some roots were embedded by different models, of what is known: one that was not
    embedded here says nothing of its model."""
    known = [(run, model) for root in roots for run, model in models_of(root) if model]
    models = {run: f"{model}, weights {weights}" for run, (model, weights) in known}
    if len(set(models.values())) > 1:
        told = "; ".join(f"{run}: {model}" for run, model in models.items())
        yield f"vectors of different embedding models do not compare ({told}). Embed them by one model"


def models_of(root: str) -> Iterator[tuple[str, tuple[str, str] | None]]:
    """Every run whose pairs are in a corpus, and what decides what its vectors mean: the model and its weights; None
    where the run does not say."""
    for run in CorpusReader(root).roots:
        yield run, model_of(run)


def model_of(run: str) -> tuple[str, str] | None:
    """What embedded the pairs of a run: the model and its weights. None where it does not say."""
    plan = resolve_folder(run, Embed.name).plan()
    if plan is None:
        return None
    settings = plan.parts["settings"]
    return settings["model"], settings.get("weights") or plan.parts["inputs"][OWN]


def _models(root: str) -> Iterator[tuple[str, tuple[str, str]]]:
    for run, model in models_of(root):
        if model is None:
            raise InputError(
                f"{run}/{Embed.name} holds no plan.json, which says what model embedded the pairs of {root}"
            )
        yield run, model


def _said(model: tuple[str, str]) -> str:
    return f"{model[0]} ({model[1]})"


def _refuse_shared_pairs(added: Sequence[Whole], held: Sequence[Whole]) -> None:
    new: dict[str, Whole] = {}
    for corpus, pair_ids in pair_ids_of(added):
        _refuse_shared(new, corpus, pair_ids)
        new |= dict.fromkeys(pair_ids, corpus)
    for corpus, pair_ids in pair_ids_of(held):
        _refuse_shared(new, corpus, pair_ids)


def _refuse_shared(new: Mapping[str, Whole], other: Whole, pair_ids: Sequence[str]) -> None:
    shared = min(new.keys() & pair_ids, default=None)
    if shared is not None:
        raise InputError(
            f"update.add: pair {shared} of {new[shared].folder.root} is in {other.folder.root} too. Leave such pairs "
            "out of what is added (filter.exclude); where they are other pairs, give their source another name"
        )
