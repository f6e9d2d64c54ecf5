"""The questions of an evaluation set: a finished run of its pictures, one pair a caption."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.commits import Whole, resolve_folder
from pipeline.errors import InputError
from stages.filter import CorpusReader

TOLD = 5  # ids in a message
OF_A_LIST = ("ingest_rows", "download", "embed")  # stages that a list's captions pass, in the run that reads it
OF_A_FILTER = ("filter_judge", "filter_duplicates")  # likewise, in the run that has the corpus
COLUMNS = ("row_id", "pair_id", "source", "image_id", "stored_sha256", "caption")


@dataclass(frozen=True)
class Question:
    id: str  # of captions the pair_id below
    pair_id: str  # of the picture's first row
    row_id: int  # of the picture, in the set's corpus
    image_id: str | None
    domain: str | None
    asked: str  # what stands behind the picture
    references: tuple[str, ...]  # true answers
    choices: tuple[str, ...] = ()  # answers that are given, of a closed-ended task


def caption_questions(
    corpus: CorpusReader, asked: str = "", domains: Mapping[str, str] | None = None
) -> list[Question]:
    """One a picture, by its first row: that of an image_id, or of equal stored bytes where the source has none.

    domains: by image_id, of every picture. Raises InputError where it lacks some.
    """
    rows: dict[tuple[str, ...], list[Mapping[str, str]]] = {}
    for shard in corpus.shards():
        for row in shard.committed.table("metadata", COLUMNS).to_pylist():
            rows.setdefault(picture_of(row), []).append(row)
    if domains is not None:
        _check_domains([some[0]["image_id"] for some in rows.values()], domains)
    return [
        Question(
            id=some[0]["pair_id"],
            pair_id=some[0]["pair_id"],
            row_id=int(some[0]["row_id"]),
            image_id=some[0]["image_id"],
            domain=None if domains is None else domains[some[0]["image_id"]],
            asked=asked,
            references=tuple(row["caption"] for row in some),
        )
        for some in rows.values()
    ]


def picture_of(pair: Mapping[str, Any]) -> tuple[str, ...]:
    """Equal of pairs that show one picture of a set: by source and image_id, without one by stored bytes."""
    return (pair["source"], pair["image_id"]) if pair["image_id"] is not None else (pair["stored_sha256"],)


def read_domains(path: Path) -> dict[str, str]:
    """By image_id, of a JSON in COCO's form. Raises InputError for another form."""
    try:
        images = json.loads(path.read_bytes())["images"]
        return {str(image["id"]): str(image["domain"]) for image in images}
    except OSError as error:
        raise InputError(f"evaluation.domains: {path} cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"evaluation.domains: {path} should hold images, each with id and domain ({type(error).__name__}: {error})"
        ) from None


def _check_domains(image_ids: Sequence[str | None], domains: Mapping[str, str]) -> None:
    lacking = [image for image in image_ids if image not in domains]
    if lacking:
        raise InputError(
            f"evaluation.domains tells nothing of {len(lacking):,} of {len(image_ids):,} pictures, such as image_id "
            f"{some_of(lacking)}: name the file that the pictures' list was made of"
        )


def some_of(names: Sequence[object]) -> str:
    more = ", …" if len(names) > TOLD else ""
    return f"{', '.join(map(str, names[:TOLD]))}{more}"


def what_is_missing(root: str) -> str:
    """Why the pictures of a run are not all of its lists', by reason; empty: all are there, or nobody counted."""
    lost: Counter[str] = Counter()
    passed = [(run, stage) for run in CorpusReader(root).roots for stage in OF_A_LIST]
    passed += [(root, stage) for stage in OF_A_FILTER]
    for run, stage in passed:
        if resolve_folder(run, stage).manifest():
            whole = Whole.open(run, stage)
            for shard in whole.manifest.shards:  # one that failed and was accepted holds rejects alone
                lost.update(whole.folder.record(shard).rejects)
    told = ", ".join(f"{why} {number:,}" for why, number in lost.most_common())
    return f"partial: {lost.total():,} captions of the list are not in {root} ({told})" if lost else ""
