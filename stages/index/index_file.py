"""index.json: what a reader has to know to search the serving shards of a run."""

from typing import Literal

from pipeline.recipe import Json, Section


class CorpusPart(Section):
    """A corpus that the index holds: its FAISS ids are first_id + row_id."""

    root: str  # "." is the run that made the index
    identity: str
    first_id: int
    rows: int


class ListRange(Section):
    """What a serving shard holds: lists first_list … end_list − 1."""

    shard: str
    first_list: int
    end_list: int
    rows: int


class IndexFile(Section):
    factory: str
    nlist: int
    metric: Literal["inner_product"]
    rows: int
    template_sha256: str  # the fingerprint of centroids and codebooks
    index_identity: str  # of the serving shards
    list_ranges: tuple[ListRange, ...]
    nprobe: int
    depth: int  # vectors re-ranked
    recall: tuple[dict[str, Json], ...]  # at these: the report's rows
    corpora: tuple[CorpusPart, ...]
