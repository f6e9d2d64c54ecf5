"""Which pairs ask and which may answer, and what is refused before anything starts."""

from collections.abc import Iterator
from dataclasses import dataclass

from pipeline.errors import InputError, RecipeError
from pipeline.recipe import Json
from pipeline.stage import Input, Need
from pipeline.storage import absolute_root
from stages.filter import Corpus, CorpusReader
from stages.index import Database, Key, model_conflicts
from stages.neighbors.recipe import NeighborsRecipe

ASKING = "corpus"


@dataclass(frozen=True)
class Databases:
    """corpus: the root whose pairs are the queries. all: where their neighbours are looked for, in the recipe's order.

    A row of all databases together has a place: 0 … N−1 through the first database's ids, then the second one's.
    """

    corpus: str
    all: tuple[Database, ...]

    @classmethod
    def open(cls, recipe: NeighborsRecipe, corpus: str) -> "Databases":
        """Raises InputError where a root holds no finished corpus."""
        roots = recipe.databases or (corpus,)
        return cls(absolute_root(corpus), tuple(Database.open(absolute_root(root)) for root in roots))

    @property
    def asking(self) -> Input:
        return Input(Corpus.name, Need.WHOLE, self.corpus, ASKING)

    @property
    def corpora(self) -> list[Input]:
        return [
            Input(Corpus.name, Need.WHOLE, part.found(database.root), f"database {number}, corpus {place}")
            for number, database in enumerate(self.all)
            for place, part in enumerate(database.corpora)
        ]

    @property
    def indexes(self) -> list[Input]:
        """What says which rows are alive, and how they are searched."""
        return [
            Input("index_gate", Need.WHOLE, database.root, f"database {number}, index")
            for number, database in enumerate(self.all)
            if database.index
        ]

    @property
    def key(self) -> Key:
        """Which vectors are searched, of all databases: those of the first index, or the images where there is none."""
        return next((database.index.key for database in self.all if database.index), "image")

    @property
    def rows(self) -> int:
        """That can be found."""
        return sum(database.size if database.alive is None else int(database.alive.sum()) for database in self.all)

    def described(self) -> list[Json]:
        """For whoever reads the neighbours: where each database's rows lie, and which of them may be found."""
        return [
            {
                "root": database.root,
                "corpora": [
                    part.model_dump() | {"root": absolute_root(part.found(database.root))} for part in database.corpora
                ],
                "alive": _alive(database),
            }
            for database in self.all
        ]


def check(recipe: NeighborsRecipe, databases: Databases) -> None:
    """Raises InputError or RecipeError, with every fault that was found."""
    asking = CorpusReader(databases.corpus)
    faults = [*_held_twice(databases), *_other_keys(databases)]
    corpora = [databases.corpus, *(str(source.root) for source in databases.corpora)]
    faults += [*_other_widths(asking, databases), *model_conflicts(corpora)]
    faults += _missing_indexes(recipe, databases)
    if faults:
        raise InputError("\n".join(f"neighbors: {fault}" for fault in faults))
    itself = asking.identity in _held(databases)
    if recipe.k > databases.rows - itself:
        raise RecipeError(
            f"neighbors.k is {recipe.k:,}, and of the {databases.rows:,} rows of the databases a query may find "
            f"{databases.rows - itself:,}: set neighbors.k to no more, or name more databases"
        )


def _held(databases: Databases) -> dict[str, str]:
    """Identity of each corpus → a database that holds it."""
    return {part.identity: database.root for database in databases.all for part in database.corpora}


def _held_twice(databases: Databases) -> Iterator[str]:
    holders: dict[str, str] = {}
    for database in databases.all:
        for part in database.corpora:
            if part.identity in holders:
                yield (
                    f"{database.root} and {holders[part.identity]} hold the same corpus, so a query would find its "
                    "pairs twice: name one of them"
                )
            holders[part.identity] = database.root


def _other_keys(databases: Databases) -> Iterator[str]:
    for database in databases.all:
        if database.index and database.index.key != databases.key:
            yield (
                f"{database.root} is searched by its {database.index.key} vectors, and a database before it by its "
                f"{databases.key} vectors: their similarities do not compare. Look in each of them in a root of its own"
            )


def _other_widths(asking: CorpusReader, databases: Databases) -> Iterator[str]:
    """Of every corpus: opening them tells besides whether one was made anew since its index was built."""
    for database in databases.all:
        for corpus in database.wholes:
            width = CorpusReader(corpus.folder.root).width
            if width != asking.width:
                yield (
                    f"the vectors of {corpus.folder.root} are {width} wide, and those of {databases.corpus} "
                    f"{asking.width}: both have to come from one embedding model"
                )


def _missing_indexes(recipe: NeighborsRecipe, databases: Databases) -> Iterator[str]:
    for database in databases.all:
        if recipe.engine == "index" and database.index is None:
            yield f"engine is index, and {database.root} has no finished index; build one, or set engine to exact"
        elif recipe.engine != "exact" and database.index:
            for part in database.index.serving:
                part.open(database.root, "index")  # raises where it was made anew


def _alive(database: Database) -> Json:
    part = database.index.alive if database.index else None
    if part is None:
        return None
    root = absolute_root(part.found(database.root))
    return {"root": root, "stage": "index_alive", "shard": "000000", "name": "alive"}
