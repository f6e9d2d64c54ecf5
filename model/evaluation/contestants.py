"""Which models are asked, with which databases: told before anything starts, without opening a weight."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from model.evaluation.answerer import model_folder
from pipeline.checksums import sha256_of_file
from pipeline.errors import InputError, RecipeError
from stages.index import Database

NO_DATABASE = "none"


@dataclass(frozen=True)
class Contestant:
    """A checkpoint. k: as many neighbours it reads of a picture; 0: it reads none."""

    checkpoint: str
    identity: str  # hash of its files
    k: int

    @classmethod
    def of(cls, checkpoint: str) -> "Contestant":
        """Raises InputError where there is none, or it is of a model that sees no pictures."""
        from model.checkpoint import configuration_of

        with model_folder(checkpoint) as folder:
            try:
                config = configuration_of(folder)
            except (ValueError, FileNotFoundError) as error:
                raise InputError(f"{checkpoint} is no checkpoint that can be opened: {error}") from None
            identity = _files_digest(folder)
        if config.vision is None:
            raise InputError(f"{checkpoint} is a model without an image encoder, such as that of stage language")
        return cls(checkpoint, identity, 0 if config.retrieval.mode == "none" else config.retrieval.neighbors)


@dataclass(frozen=True)
class Cell:
    """A model that is asked with a database, or, where k is 0, with none."""

    model: str
    database: str
    k: int


def cells(
    models: Mapping[str, Contestant], databases: Mapping[str, str | None], neighbors: Sequence[int] | None
) -> list[Cell]:
    """In order. A model that reads no neighbours, and a database that is null, make one cell without a database.

    neighbors: how many of them; None: as many as the model reads. Raises RecipeError where a model reads fewer.
    """
    found: dict[Cell, None] = {}
    for name, model in models.items():
        for database, root in databases.items():
            for k in [model.k] if neighbors is None else neighbors:
                if model.k and k > model.k:
                    raise RecipeError(
                        f"evaluation.neighbors asks for {k}, and {name} ({model.checkpoint}) reads {model.k} of a "
                        "picture at most"
                    )
                alone = not k or root is None or not model.k
                found[Cell(name, NO_DATABASE, 0) if alone else Cell(name, database, k)] = None
    return list(found)


def size_of(database: str) -> int:
    """Pairs that may be retrieved. Raises InputError where the index is not finished."""
    return Database.of_index(database).size


def _files_digest(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest.update(f"{path.relative_to(folder)} {sha256_of_file(path)}\n".encode())
    return digest.hexdigest()
