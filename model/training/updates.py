"""The samples of every update, as batches, made in worker processes ahead of the step.

Which samples an update holds depends on its number and the seed alone: not on the ranks, which take every w-th of
them, nor on the loader's processes. So training goes on from any update, on any number of machines.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from torch.utils.data import DataLoader, Dataset

from model.batch import IGNORED, Batch, collate
from model.flops import Work
from model.sequence import Chunk, Segment, SequenceBuilder, pack
from model.training.order import Order
from model.training.samples import Sample, Source, Unusable
from pipeline.disk import allow_many_open_files


@dataclass(frozen=True)
class Share:
    """What a source adds to every update; the weight of its loss is the pace's."""

    batch: int  # samples, of all ranks


@dataclass(frozen=True, kw_only=True)
class Batching:
    micro_batch: int  # samples that a rank computes at a time
    rows: Literal["packed", "buckets"] = "buckets"  # several samples a row, or one, with others of its length
    row_tokens: int = 64  # of a packed row


@dataclass(frozen=True)
class MicroBatch:
    source: str
    batch: Batch
    work: Work
    caption_tokens: int  # with a loss
    retrieved_tokens: int

    @classmethod
    def of(cls, source: str, batch: Batch) -> "MicroBatch":
        learned = batch.targets != IGNORED
        retrieved = int((learned & batch.retrieved.roll(-1, dims=1)).sum())
        return cls(source, batch, Work.of(batch), int(learned.sum()) - retrieved, retrieved)


@dataclass(frozen=True)
class Update:
    number: int
    micro_batches: Sequence[MicroBatch]  # as many on every rank
    samples: int
    ids: Mapping[str, Sequence[str]]  # by source: of the samples, for whoever asks what went wrong
    skipped: Mapping[str, int] = field(default_factory=dict)  # reason → samples
    cut: int = 0  # texts that were longer than allowed


@dataclass(frozen=True)
class Rank:
    number: int = 0
    of: int = 1


class Updates(Dataset[Update]):
    """By number. `open_sources` travels to the loader's processes and opens what they read from."""

    def __init__(
        self,
        open_sources: Callable[[], Mapping[str, Source]],
        shares: Mapping[str, Share],
        builder: SequenceBuilder,
        batching: Batching,
        *,
        seed: int = 0,
        rank: Rank = Rank(),
    ) -> None:
        self._open_sources, self._shares, self._builder = open_sources, shares, builder
        self._batching, self._seed, self._rank = batching, seed, rank

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in ("_sources", "_orders")}

    @cached_property
    def _sources(self) -> Mapping[str, Source]:
        return self._open_sources()

    @cached_property
    def _orders(self) -> dict[str, Order]:
        return {name: Order(self._sources[name].sizes, self._seed) for name in self._shares}

    def __getitem__(self, number: int) -> Update:
        skipped: Counter[str] = Counter()
        ids: dict[str, list[str]] = {}
        micro_batches: list[MicroBatch] = []
        cut = 0
        for name, share in self._shares.items():
            segments: list[Segment] = []
            ids[name] = []
            for position in range(number * share.batch + self._rank.number, (number + 1) * share.batch, self._rank.of):
                try:
                    sample = self._sources[name].sample(*self._orders[name].at(position))
                    segments.append(segment_of(sample, self._builder))
                except Unusable as reason:
                    skipped[str(reason)] += 1
                else:
                    ids[name].append(sample.id)
            cut += sum(segment.cut for segment in segments)
            micro_batches += [MicroBatch.of(name, batch) for batch in self._batches(segments, share)]
        return Update(number, micro_batches, sum(map(len, ids.values())), ids, skipped, cut)

    def _batches(self, segments: list[Segment], share: Share) -> list[Batch]:
        """As many as the rank with the most samples needs, for all ranks step together."""
        most = -(-share.batch // self._rank.of)
        parts = -(-most // self._batching.micro_batch)
        if self._batching.rows == "buckets":
            segments = sorted(segments, key=len)
        bounds = [len(segments) * part // parts for part in range(parts + 1)]
        return [
            collate(self._rows(segments[first:last] or [self._nothing]), self._builder.config)
            for first, last in zip(bounds, bounds[1:], strict=False)
        ]

    def _rows(self, segments: list[Segment]) -> list[list[Segment]]:
        if self._batching.rows == "buckets":
            return [[segment] for segment in segments]
        lengths = [len(segment) for segment in segments]
        rows = pack(lengths, max(self._batching.row_tokens, *lengths))
        return [[segments[number] for number in row] for row in rows]

    @cached_property
    def _nothing(self) -> Segment:
        """In place of samples, where a rank has none: a row without a loss."""
        return self._builder.segment([Chunk(learned=False)])


def segment_of(sample: Sample, builder: SequenceBuilder) -> Segment:
    """Raises Unusable where the model has too few positions for it."""
    segment = builder.segment(sample.chunks)
    if len(segment) > builder.config.language_model.positions:
        raise Unusable("too_long")
    return segment


def loaded(updates: Updates, first: int, last: int, *, processes: int = 0, ahead: int = 2) -> "DataLoader[Update]":
    """Updates first … last − 1. processes: of one thread each, 0 makes them between the steps; ahead: updates that each
    has ready."""
    allow_many_open_files()  # every tensor that comes from a process is one
    return DataLoader(
        updates,
        batch_size=None,
        sampler=range(first, last),
        num_workers=processes,
        prefetch_factor=ahead if processes else None,
        multiprocessing_context="spawn" if processes else None,
    )
