"""The serving shards in processes of their own: each owns the lists of some shards, on whatever node has room for it.

The asker finds the nearest lists itself, asks only their owners, and re-ranks what they found: the answers are those of
one process, bit for bit. An owner that dies is started again, and the query waits for it.
"""

from collections.abc import Sequence
from functools import partial

from pipeline.actors import Actors, Whereabouts
from pipeline.errors import RecipeError
from pipeline.stage import Resources
from pipeline.storage import absolute_root
from stages.index.database import ONLY, Database
from stages.index.index_file import IndexFile, ListRange
from stages.index.retriever import open_serving
from stages.index.serving import Found, Probe, Scores, ServedLists
from stages.index.vectors import Ids

OWNER = Resources(memory_gib=1)  # its files are memory-mapped, so it needs little of its own


class Fleet:
    """The owners of an index' inverted lists (serving.Owners): give it to a Retriever, and close it afterwards.

    An owner opens its files itself, by the root: from an object store they go to its node's cache.
    num_owners: None: one for each serving shard. resources: of each owner; its threads share a batch of queries.
    Raises InputError where the index is not finished, RecipeError where it has fewer serving shards than owners.
    """

    def __init__(self, root: str, *, num_owners: int | None = None, resources: Resources = OWNER) -> None:
        database = Database.of_index(absolute_root(root))
        index = database.index
        assert index is not None, "opened by its index"
        groups = {f"owner {number}": held for number, held in enumerate(_shared_out(index, num_owners))}
        template = index.template.open(database.root, "index_train").read(ONLY)
        self._template = ServedLists.open(template.path("template"))
        self._spans = {name: _span(held) for name, held in groups.items()}
        parts = {name: Database(database.root, database.corpora, _only(index, held)) for name, held in groups.items()}
        self._owners = Actors({name: partial(open_serving, part) for name, part in parts.items()}, resources)

    def probe(self, queries: Scores, count: int) -> Probe:
        """By the template, whose centroids every shard repeats."""
        return self._template.probe(queries, count)

    def scan(self, probe: Probe, count: int) -> list[tuple[Ids, Found]]:
        """Raises NotOpened where an owner dies again and again, InputError where its files are not as they were."""
        asked = {name: probe.within(span) for name, span in self._spans.items()}
        answers = self._owners.call(
            "scan", {name: (theirs, count) for name, (asking, theirs) in asked.items() if len(asking)}
        )
        return [(asked[name][0][rows], found) for name, answer in answers.items() for rows, found in answer]

    def whereabouts(self) -> dict[str, Whereabouts]:
        """Of each owner: its node, its process, and how many scans it has answered since it was started."""
        return self._owners.whereabouts()

    def close(self) -> None:
        self._owners.close()


Held = Sequence[tuple[int, ListRange]]  # the number of a serving part, and a shard of it


def _shared_out(index: IndexFile, num_owners: int | None) -> list[Held]:
    """Neighbouring lists to one owner, whichever part they belong to, and about as many shards to each."""
    shards = [(number, shard) for number, part in enumerate(index.serving) for shard in part.ranges]
    wanted = len(shards) if num_owners is None else num_owners
    if not 1 <= wanted <= len(shards):
        raise RecipeError(
            f"{wanted} owners were asked for, and the index has {len(shards)} serving shards to share out: ask for 1 "
            f"to {len(shards)}, or build it with more index.serving_shards"
        )
    shards.sort(key=lambda held: held[1].first_list)
    bounds = [len(shards) * number // wanted for number in range(wanted + 1)]
    return [shards[first:end] for first, end in zip(bounds, bounds[1:], strict=False)]


def _span(held: Held) -> ListRange:
    """From the first to the last list. There is no gap: a part's shards follow each other."""
    shards = [shard for _, shard in held]
    return ListRange(
        shard=" ".join(shard.shard for shard in shards),
        first_list=shards[0].first_list,
        end_list=max(shard.end_list for shard in shards),
        rows=sum(shard.rows for shard in shards),
    )


def _only(index: IndexFile, held: Held) -> IndexFile:
    """The same index, as if it had these serving shards alone."""
    kept = [
        part.model_copy(update={"ranges": tuple(shard for shard in part.ranges if (number, shard) in held)})
        for number, part in enumerate(index.serving)
    ]
    return index.model_copy(update={"serving": tuple(part for part in kept if part.ranges)})
