"""Which models are asked, with which databases: told before anything starts, without opening a weight."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.errors import RecipeError

if TYPE_CHECKING:  # what is imported here would make the help of a job wait for torch
    from model.evaluation.answerer import Answerer

NO_DATABASE = "none"


@dataclass(frozen=True)
class Contestant:
    """A checkpoint. k: as many neighbours it reads of a picture; 0: it reads none."""

    checkpoint: str
    identity: str
    k: int

    @classmethod
    def of(cls, checkpoint: str) -> "Contestant":
        """Raises InputError as About.of does."""
        from model.evaluation.answerer import About, identity_of

        return cls(checkpoint, identity_of(checkpoint), About.of(checkpoint).neighbors)

    def open(self) -> "Answerer":
        """Raises RecipeError where another model lies there since, and InputError as Answerer.open does."""
        from model.evaluation.answerer import Answerer, identity_of

        if identity_of(self.checkpoint) != self.identity:
            raise RecipeError(f"models: {self.checkpoint} holds another model than when the evaluation began")
        return Answerer.open(self.checkpoint)


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

    neighbors: how many of them; None: as many as the model reads. Raises RecipeError where a model reads fewer, and for
    an index by the name of no database.
    """
    if databases.get(NO_DATABASE) is not None:
        raise RecipeError(
            f"databases.{NO_DATABASE} is {databases[NO_DATABASE]}, and answers say {NO_DATABASE} where a model has no "
            "database: give it another name"
        )
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
