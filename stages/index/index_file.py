"""index.json: what a reader has to know to search an index, wherever its parts lie."""

from typing import Literal

from pipeline.commits import Whole
from pipeline.errors import InputError
from pipeline.recipe import Json, Section
from stages.index.vectors import Direction, Key

HERE = "."  # the root that holds the file


class Part(Section):
    """A finished stage that the index is made of. root: `.` where it lies in the root of index.json."""

    root: str
    identity: str

    def open(self, root: str, stage: str) -> Whole:
        """root: where index.json lies. Raises InputError where the stage was moved or made anew since."""
        where = self.found(root)
        try:
            whole = Whole.open(where, stage)
        except InputError as error:
            raise InputError(f"{error}. The index in {root} is made of it: if it was moved, move it back") from None
        if whole.identity != self.identity:
            raise InputError(f"{where}/{stage} is another one than its index was measured with; build the index again")
        return whole

    def found(self, root: str) -> str:
        return root if self.root == HERE else self.root


class CorpusPart(Part):
    """A corpus that the index holds: the ids of its rows are first_id + row_id."""

    first_id: int
    rows: int


class ListRange(Section):
    """What a serving shard holds: lists first_list … end_list − 1."""

    shard: str
    first_list: int
    end_list: int
    rows: int


class ServingPart(Part):
    """Serving shards that were made together. A list may have entries in several parts."""

    ranges: tuple[ListRange, ...]


class Setting(Section):
    """How a search is made."""

    nprobe: int  # lists that are looked into
    depth: int  # vectors re-ranked


class IndexFile(Section):
    factory: str
    nlist: int
    metric: Literal["inner_product"]
    key: Key  # which vectors are searched
    rows: int  # that can be found
    template: Part  # the stage index_train that all parts share
    template_sha256: str  # the fingerprint of centroids and codebooks
    serving: tuple[ServingPart, ...]
    alive: Part | None  # the stage index_alive, where rows were deleted
    corpora: tuple[CorpusPart, ...]
    tuned: dict[Direction, Setting]  # by what asks
    recall: tuple[dict[str, Json], ...]  # at these: the report's rows

    def elsewhere(self, root: str) -> "IndexFile":
        """The same, as a file in another root says it."""

        def moved(part: Part) -> Part:
            return part.model_copy(update={"root": part.found(root)})

        return self.model_copy(
            update={
                "template": moved(self.template),
                "serving": tuple(map(moved, self.serving)),
                "alive": self.alive and moved(self.alive),
                "corpora": tuple(map(moved, self.corpora)),
            }
        )
