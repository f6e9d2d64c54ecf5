"""How much memory an index takes that is held whole, told from its factory string before it is built.

Codes and ids grow with the rows; everything else is there once in each serving shard.
"""

from dataclasses import dataclass
from typing import Any

from stages.index.faiss_index import empty_index, inverted_file, transforms

GIB = 2**30
SHARD_BYTES = 5 * GIB  # of codes and ids in a serving shard: 67 million at 80 bytes; each shard repeats the centroids
ID_BYTES = 8
LIST_BYTES = 180  # measured: two vectors a list, their allocations' headers and rounding
NODE_BYTES = 16  # of a graph of centroids, beside the links of its ground layer; few nodes have more
LINK_BYTES, FLOAT_BYTES = 4, 4


@dataclass(frozen=True)
class IndexBytes:
    codes: int  # with ids
    centroids: int
    graph: int
    tables: int  # codebooks, and rotations before them
    lists: int
    shards: int

    @property
    def total(self) -> int:
        return self.codes + self.shards * (self.centroids + self.graph + self.tables + self.lists)


def index_bytes(factory: str, width: int, rows: int, serving_shards: int | None = None) -> IndexBytes:
    """serving_shards: None: as many as IndexServe would make.

    Raises RecipeError where the factory is none that can be served.
    """
    import faiss

    index = empty_index(factory, width)
    ivf = inverted_file(index)
    quantizer: Any = faiss.downcast_index(ivf.quantizer)
    graph: Any = getattr(quantizer, "hnsw", None)
    links = graph.nb_neighbors(0) * LINK_BYTES + NODE_BYTES if graph else 0
    codebook = ivf.pq.ksub * ivf.d if isinstance(ivf, faiss.IndexIVFPQ) else 0
    rotations = sum(transform.d_in * transform.d_out for transform in transforms(index))
    codes = rows * (ivf.code_size + ID_BYTES)
    return IndexBytes(
        codes=codes,
        centroids=FLOAT_BYTES * ivf.nlist * ivf.d,
        graph=ivf.nlist * links,
        tables=FLOAT_BYTES * (codebook + rotations),
        lists=ivf.nlist * LIST_BYTES,
        shards=serving_shards or shards_for(codes),
    )


def shards_for(codes: int) -> int:
    """Serving shards for so many bytes of codes and ids."""
    return max(-(-codes // SHARD_BYTES), 1)
