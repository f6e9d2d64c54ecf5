"""Exact search beside the bare products that it cannot do without."""

import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from stages.index.exact import exact_search
from stages.index.vectors import BLOCK, Ids
from trials.benchmarks.clock import seconds

REPETITIONS = 3
PAIRS = 15_000_000, 119_000_000  # queries and rows of the paper's size
H100_PER_S, REALISTIC = 700e12, 0.5  # dense float16, and the share of it that large products reach


@dataclass(frozen=True)
class InMemory:
    """A matrix (N, D) as exact search reads it, so many rows a block."""

    matrix: npt.NDArray[np.float16]
    block: int = BLOCK

    @property
    def width(self) -> int:
        return int(self.matrix.shape[1])

    def blocks(self) -> Iterator[tuple[int, npt.NDArray[np.float16]]]:
        for first in range(0, len(self.matrix), self.block):
            yield first, self.matrix[first : first + self.block]

    def gather(self, ids: Ids) -> npt.NDArray[np.float16]:
        return self.matrix[ids]


def exact(
    num_queries: int = 4096,
    num_rows: int = 1_000_000,
    width: int = 512,
    ks: Sequence[int] = (30, 300),
    repetitions: int = REPETITIONS,
) -> Iterator[tuple[str, str]]:
    """Clustered unit vectors, queries among the rows; all their products by torch.mm before each search."""
    import torch

    rows = _clustered(num_rows, width)
    queries = rows.matrix[:: max(num_rows // num_queries, 1)][:num_queries].astype(np.float32)
    where = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {torch.get_num_threads()} threads"
    products = 2.0 * len(queries) * num_rows * width
    for k in ks:
        search, bare = partial(exact_search, rows, queries, k), partial(_bare, queries, rows)
        exact_search(rows, queries[:64], k)  # warms up
        times = [(seconds(bare), seconds(search)) for _ in range(repetitions)]
        bare_s, search_s = (statistics.median(column) for column in zip(*times, strict=True))
        ratio = statistics.median(alone / whole for alone, whole in times)
        what = f"{len(queries):,} queries × {num_rows:,} rows × {width}, k {k}, {where}"
        yield f"{what}: torch.mm of all tiles", f"{products / bare_s / 1e9:,.1f} GFLOP/s"
        yield f"{what}: exact search", f"{products / search_s / 1e9:,.1f} GFLOP/s"
        yield f"{what}: ratio, median of {repetitions}", f"{ratio:.2f} (target ≥ 0.7)"
        yield f"{_size()} at the rate of k {k}", _hours(2.0 * math.prod(PAIRS) * width * search_s / products)
    by_arithmetic = 2.0 * math.prod(PAIRS) * width / (H100_PER_S * REALISTIC)
    yield (
        f"{_size()} by arithmetic, not measured: an H100 at half its float16 rate, products alone",
        _hours(by_arithmetic),
    )


def _bare(queries: npt.NDArray[np.float32], rows: InMemory) -> None:
    """All products, in the type and on the device that exact search uses, and nothing done with them."""
    import torch

    from pipeline.arithmetic import multiply
    from stages.index.topk import LIMITS, fastest

    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype, tile_rows = fastest(queries, device).dtype, min(LIMITS[device].tile_rows, len(rows.matrix))
    left = torch.from_numpy(queries).to(device, dtype)
    right = torch.from_numpy(rows.matrix[:tile_rows]).to(device, dtype)
    out = torch.empty(len(left) * tile_rows, device=device)
    for first in range(0, len(rows.matrix), tile_rows):
        tile = right[: len(rows.matrix) - first]
        multiply(left, tile, out[: len(left) * len(tile)].view(len(left), len(tile)))
    out[0].item()  # the GPU has finished


def _clustered(num: int, width: int, seed: int = 5) -> InMemory:
    """Unit vectors around a hundredth as many centers, three in a hundred of them twice."""
    rng = np.random.default_rng(seed)
    centers = rng.standard_normal((max(num // 100, 1), width), np.float32)
    matrix = np.empty((num, width), np.float16)
    for first in range(0, num, BLOCK):
        size = len(matrix[first : first + BLOCK])
        drawn = centers[rng.integers(len(centers), size=size)] + rng.standard_normal((size, width), np.float32)
        matrix[first : first + BLOCK] = drawn / np.linalg.norm(drawn, axis=1, keepdims=True)
    copies = rng.integers(num, size=(2, num * 3 // 100))
    matrix[copies[0]] = matrix[copies[1]]
    return InMemory(matrix)


def _size() -> str:
    return " × ".join(f"{number / 1e6:,.0f} M" for number in PAIRS)


def _hours(taken_s: float) -> str:
    return f"{taken_s / 3600:,.1f} hours"
