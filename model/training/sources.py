"""Samples out of what the pipeline made: corpora joined with their neighbours, and five-pair samples.

Pictures come from the tars, at their place, or as cached patch tokens. Pairs that are held out are never learned, nor
shown as a neighbour.
"""

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from torch import Tensor

from model.config import ImageEncoderConfig, to_dict
from model.sequence import Chunk
from model.training.patches import PatchReader
from model.training.pictures import decode
from model.training.recipe import SourceRecipe
from model.training.samples import Sample, Unusable
from pipeline.errors import InputError, RecipeError
from pipeline.fingerprint import differences
from stages.filter import CorpusReader
from stages.interleave import SampleReader
from stages.neighbors import NeighborReader

Row = Mapping[str, Any]
OPEN_SHARDS = 4  # as many as the order mixes at a time
DOCUMENT = 5  # related captions of a document, at most


@dataclass(frozen=True)
class Split:
    """Which pairs are learned. share: of all pairs, that are held out; the same ones in every stage."""

    share: float = 0.0
    learns: Literal["the others", "the held out"] = "the others"

    def held_out(self, pair_id: str) -> bool:
        return zlib.crc32(pair_id.encode()) < self.share * 2**32

    def refuse(self, pair_id: str, others: Sequence[str] = ()) -> None:
        """Raises Unusable where the pair belongs to the other part; where one learns, also for the others beside it."""
        if self.learns == "the held out" and not self.held_out(pair_id):
            raise Unusable("learned")
        if self.learns == "the others" and any(map(self.held_out, [pair_id, *others])):
            raise Unusable("held_out")


@dataclass(frozen=True)
class Pictures:
    """Of a corpus' rows: decoded, or from the cache where there is one."""

    corpus: CorpusReader
    image_size: int  # px
    cache: PatchReader | None = None

    def of(self, row_id: int, place: Row) -> Tensor:
        """(1, 3, H, W) uint8 or (1, S, E) float16. place: the row's input, shard, offset and bytes. Raises Unusable."""
        if self.cache is not None:
            patches = self.cache.patches(row_id)
            if patches is None:
                raise Unusable("no_picture")
            return patches
        try:
            return decode(self.corpus.picture(place), self.image_size)
        except (ValueError, OSError) as error:
            raise Unusable("no_picture") from error


class Neighbors:
    """The captions of a table's lists of neighbours, row by row."""

    def __init__(self, lists: pa.ChunkedArray, k: int, split: Split) -> None:
        """lists: of type pipeline.schemas.NEIGHBOR_LIST."""
        flat = lists.combine_chunks()
        self._ends = np.concatenate([[0], np.cumsum(pc.list_value_length(flat).fill_null(0).to_numpy())])
        children = pc.list_flatten(flat)
        self._pair_ids, self._captions = children.field("pair_id"), children.field("caption")
        self._k, self._split = k, split

    def of(self, row: int) -> list[str]:
        """k at most, nearest first."""
        captions: list[str] = []
        for number in range(self._ends[row], self._ends[row + 1]):
            if len(captions) == self._k:
                break
            if not self._split.held_out(self._pair_ids[number].as_py()):
                captions.append(self._captions[number].as_py())
        return captions


@dataclass(frozen=True)
class Reads:
    """What is read of a source, and how."""

    k: int  # neighbours; 0: none
    encoder: ImageEncoderConfig | None  # that looks at the pictures; None: no pictures
    split: Split = Split()
    fewer_will_do: bool = False  # than k, where fewer are stored


class Pairs:
    """A corpus' pairs with their neighbours' captions: chunks of a picture and its caption, or of text alone."""

    def __init__(self, recipe: SourceRecipe, reads: Reads) -> None:
        """Raises InputError where what is named is not whole or does not belong together."""
        assert recipe.corpus is not None, "the recipe says corpus or samples"
        self._corpus = CorpusReader(recipe.corpus)
        self._neighbors = neighbors_of(recipe, self._corpus, reads)
        self._reads = reads
        self._pictures = pictures_of([self._corpus], recipe, reads)
        self._shards = list(self._corpus.shards())
        self._opened = lru_cache(maxsize=OPEN_SHARDS)(self._open)

    @property
    def sizes(self) -> list[int]:
        return [shard.rows for shard in self._shards]

    @property
    def identity(self) -> dict[str, str]:
        made_of = {"corpus": self._corpus.identity}
        return made_of if self._neighbors is None else made_of | {"neighbors": self._neighbors.identity}

    def sample(self, shard: int, row: int) -> Sample:
        columns, neighbors = self._opened(shard)
        pair_id = columns["pair_id"][row].as_py()
        self._reads.split.refuse(pair_id)
        image = None
        if self._pictures:
            place = {name: columns[name][row].as_py() for name in ("input", "shard", "offset", "bytes")}
            image = self._pictures[0].of(self._shards[shard].first_row_id + row, place)
        captions = neighbors.of(row) if neighbors else []
        return Sample(pair_id, (Chunk(image=image, text=columns["caption"][row].as_py(), neighbors=captions),))

    def _open(self, number: int) -> tuple[dict[str, pa.Array], Neighbors | None]:
        shard = self._shards[number]
        names = ["pair_id", "caption", "input", "shard", "offset", "bytes"]
        columns = {name: shard.metadata[name].combine_chunks() for name in names}
        if self._neighbors is None:
            return columns, None
        lists = self._neighbors.table(shard.id)["neighbors"]
        return columns, Neighbors(lists, self._reads.k, self._reads.split)


@dataclass(frozen=True)
class Documents:
    """Related captions, one behind the other: text from which one learns to read what stands before."""

    source: "Pairs | FivePairs"

    @property
    def sizes(self) -> list[int]:
        return self.source.sizes

    @property
    def identity(self) -> dict[str, str]:
        return self.source.identity

    def sample(self, shard: int, row: int) -> Sample:
        """1 to 5 captions, the number drawn by the pair's id; its own is the last."""
        sample = self.source.sample(shard, row)
        # The nearest stands just before the own caption, so that short documents hold it.
        texts = [text for chunk in sample.chunks for text in [*reversed(chunk.neighbors), chunk.text]]
        length = 1 + zlib.crc32(f"{sample.id} document".encode()) % DOCUMENT
        return Sample(sample.id, tuple(Chunk(text=text) for text in texts[-length:]))


class FivePairs:
    """Five-pair samples, each picture with its own neighbours, the query last."""

    def __init__(self, recipe: SourceRecipe, reads: Reads) -> None:
        """Raises InputError where the samples are not whole, or hold no neighbours and some are asked for."""
        assert recipe.samples is not None, "the recipe says corpus or samples"
        self._reader = SampleReader(recipe.samples)
        self._learn, self._reads = recipe.learn, reads
        self._pictures = pictures_of(self._reader.corpora, recipe, reads)
        self._shards = self._reader.shards
        self._opened = lru_cache(maxsize=OPEN_SHARDS)(self._open)
        if reads.k and self._reader.table(self._shards[0])["neighbors"].null_count:
            raise InputError(
                f"the samples in {recipe.samples} were made without neighbours; make them with "
                "interleave.neighbors=ROOT, or train with model.mode=none"
            )

    @property
    def sizes(self) -> list[int]:
        return [self._reader.rows(shard) for shard in self._shards]

    @property
    def identity(self) -> dict[str, str]:
        return {"samples": self._reader.identity}

    def sample(self, shard: int, row: int) -> Sample:
        columns, neighbors = self._opened(shard)
        pair_id, pairs = columns["pair_id"][row].as_py(), columns["pairs"][row].as_py()
        self._reads.split.refuse(pair_id, [pair["pair_id"] for pair in pairs])
        first = neighbors.starts[row] if neighbors else 0
        chunks = tuple(
            Chunk(
                image=self._pictures[pair["corpus"]].of(pair["row_id"], pair) if self._pictures else None,
                text=pair["caption"],
                neighbors=neighbors.of(first + number) if neighbors else (),
                learned=self._learn == "all" or number == len(pairs) - 1,
            )
            for number, pair in enumerate(pairs)
        )
        return Sample(pair_id, chunks)

    def _open(self, number: int) -> tuple[dict[str, pa.Array], "FiveNeighbors | None"]:
        table = self._reader.table(self._shards[number])
        columns = {name: table[name].combine_chunks() for name in ("pair_id", "pairs")}
        return columns, FiveNeighbors(table["neighbors"], self._reads.k, self._reads.split) if self._reads.k else None


class FiveNeighbors(Neighbors):
    """Lists of lists: `starts` says which is a sample's first."""

    def __init__(self, lists: pa.ChunkedArray, k: int, split: Split) -> None:
        outer = lists.combine_chunks()
        super().__init__(pa.chunked_array([pc.list_flatten(outer)]), k, split)
        self.starts = np.concatenate([[0], np.cumsum(pc.list_value_length(outer).to_numpy())])


def neighbors_of(recipe: SourceRecipe, corpus: CorpusReader, reads: Reads) -> NeighborReader | None:
    if reads.k == 0:
        return None
    if recipe.neighbors is None:
        raise RecipeError(f"the source of corpus {recipe.corpus} names no neighbors; give the root that holds them")
    reader = NeighborReader(recipe.neighbors)
    if reader.corpus_identity != corpus.identity:
        raise InputError(
            f"the neighbours in {recipe.neighbors} are of another corpus: its identity is "
            f"{reader.corpus_identity[:12]}, that of {recipe.corpus} is {corpus.identity[:12]}. Make them anew by "
            "jobs/precompute_neighbors.py"
        )
    if reader.k < reads.k and not reads.fewer_will_do:
        raise RecipeError(
            f"model.neighbors is {reads.k}, and {recipe.neighbors} holds {reader.k} a pair: ask for {reader.k} at "
            f"most, or make neighbours with neighbors.k={reads.k}"
        )
    return reader


def cached(root: str, encoder: ImageEncoderConfig) -> PatchReader:
    reader = PatchReader(root)
    fields = "; ".join(
        f"{name} was {theirs} and is {ours}"
        for name, theirs, ours in differences(to_dict(reader.encoder), to_dict(encoder))
    )
    if fields:
        raise InputError(
            f"the patches in {root} were made by another image encoder: {fields}. Make the patches anew, or leave them "
            "out of the recipe: the pictures are read then"
        )
    return reader


def pictures_of(corpora: Sequence[CorpusReader], recipe: SourceRecipe, reads: Reads) -> list[Pictures]:
    """One a corpus; none where no pictures are read."""
    if reads.encoder is None:
        return []
    opened = [cached(root, reads.encoder) for root in recipe.patches]
    caches = {cache.corpus_identity: cache for cache in opened}
    missing = [corpus.identity for corpus in corpora if caches and corpus.identity not in caches]
    if missing:
        raise InputError(
            f"patches {', '.join(recipe.patches)} hold no patch tokens of the corpora of identity "
            f"{', '.join(identity[:12] for identity in missing)}; name a cache of each corpus, or none"
        )
    return [Pictures(corpus, reads.encoder.image_size, caches.get(corpus.identity)) for corpus in corpora]


Opened = Pairs | Documents | FivePairs


def open_sources(
    recipes: Mapping[str, SourceRecipe], reads: Reads, kind: Literal["samples", "documents"] = "samples"
) -> dict[str, Opened]:
    """By name."""

    def opened(recipe: SourceRecipe) -> Opened:
        if kind == "documents":
            # Five pairs are related as they are.
            return Documents(FivePairs(recipe, replace(reads, k=0)) if recipe.samples else Pairs(recipe, reads))
        return FivePairs(recipe, reads) if recipe.samples else Pairs(recipe, reads)

    return {name: opened(recipe) for name, recipe in recipes.items()}
