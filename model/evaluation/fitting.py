"""Whether a checkpoint and an index go together, told before their weights and vectors are read."""

import logging

from model.evaluation.answerer import About
from model.training.key_encoders import Encoder, encoders_of
from pipeline.errors import InputError
from stages.index import Database

log = logging.getLogger("pipeline.captions")


def neighbors_shown(
    checkpoint: str, index: str | None, wanted: int | None = None, *, other_encoder: bool = False
) -> int:
    """How many of a picture the model is shown. index: None: none. wanted: None: as many as the model was trained with.
    other_encoder: the index may have other keys than those that it was trained with.

    Raises InputError where one of the two is not there or the model sees no pictures, for another number than 0…k, and
    for an index that holds fewer pairs or has other keys.
    """
    about = About.of(checkpoint)
    if index is None:
        if wanted:
            raise InputError(f"neighbors is {wanted}, and there is no index to take them from: name one")
        return 0
    if wanted is not None and not 0 <= wanted <= about.neighbors:
        raise InputError(
            f"neighbors is {wanted}; allowed are 0…{about.neighbors}, as many as {checkpoint} was trained with"
        )
    shown = about.neighbors if wanted is None else wanted
    if shown:
        database = Database.of_index(index)
        assert database.index is not None, "opened by its index"
        if database.index.rows < shown:
            raise InputError(
                f"the index of {index} holds {database.index.rows:,} pairs that can be found, fewer than the {shown} "
                "neighbours that a picture is to have: ask for fewer (neighbors), or name another index"
            )
        if not other_encoder:
            _check_keys(checkpoint, about.key_encoders, index, frozenset(encoders_of(database.readers)))
    return shown


def _check_keys(checkpoint: str, learned: frozenset[Encoder], index: str, found: frozenset[Encoder]) -> None:
    """Each as far as it is known."""
    if not learned or not found:
        unknown = index if learned else checkpoint
        log.info("%s does not say whose vectors its neighbours are found by: whether they fit is not checked", unknown)
    elif not found <= learned:
        raise InputError(
            f"{checkpoint} was trained with neighbours found by {_told(learned)}, and the vectors of {index} are by "
            f"{_told(found)}: what is near by these is not what the model learned to read. Name an index of the "
            "former, or say --other-encoder (evaluation.other_encoder) to take it all the same"
        )


def _told(encoders: frozenset[Encoder]) -> str:
    return ", ".join(f"{model} ({_short(weights)})" for model, weights in sorted(encoders))


def _short(weights: str) -> str:
    """A tag of open_clip's as it is, of a checksum the beginning."""
    digest = weights.removeprefix("sha256:")
    return digest[:12] if len(digest) == 64 else weights
