"""Samples in memory, some of which cannot be used: all that the loader's processes import of these tests."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random

from model.sequence import Chunk
from model.training.order import Order
from model.training.samples import Sample, Source, Unusable
from tests.model.small_models import picture


@dataclass(frozen=True)
class Damaged:
    """A source in memory of which some samples cannot be used."""

    samples: Sequence[Sample | None]

    @property
    def sizes(self) -> Sequence[int]:
        return [len(self.samples)]

    def sample(self, shard: int, row: int) -> Sample:
        found = self.samples[row]
        if found is None:
            raise Unusable("no_picture")
        return found


def words(random: Random, most: int = 12) -> str:
    return "".join(random.choices("abcdefghij ", k=random.randint(1, most)))


def pairs(count: int, seed: int) -> list[Sample]:
    """Of texts as long as it comes, with 0 to 2 neighbours."""
    random = Random(seed)
    return [
        Sample(
            f"{seed}-{number}",
            (
                Chunk(
                    image=picture(100 * seed + number),
                    text=words(random),
                    neighbors=[words(random) for _ in range(random.randint(0, 2))],
                ),
            ),
        )
        for number in range(count)
    ]


def captions(count: int, seed: int) -> list[Sample]:
    """Pairs without their pictures."""
    return [Sample(each.id, (replace(each.chunks[0], image=None),)) for each in pairs(count, seed)]


def damaged(samples: Sequence[Sample | None], positions: Iterable[int], instead: Sample | None = None) -> Damaged:
    """What an order of seed 0 has at these positions is missing, or another sample."""
    order = Order([len(samples)], 0)
    rows = {order.at(position)[1] for position in positions}
    return Damaged([instead if row in rows else sample for row, sample in enumerate(samples)])


def given(sources: Mapping[str, Source]) -> Mapping[str, Source]:
    return sources
