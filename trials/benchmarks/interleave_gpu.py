"""Mining on a GPU, beside the rate of its bare products. Imports torch."""

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
import torch

from pipeline.arithmetic import FLOAT32, MATRIX_UNITS, multiply
from stages.interleave.engines import rule_of
from stages.interleave.products import LIMITS, Products
from stages.interleave.recipe import InterleaveRecipe
from stages.neighbors import Device
from trials.benchmarks.clock import seconds
from trials.benchmarks.interleave_vectors import SHAPES, PairSet

Line = tuple[str, str]
CCS = 15_000_000  # rows


def on_gpu(sizes: Sequence[int], density: float, device: Device = "cuda", products: int = 50) -> Iterator[Line]:
    """All rows are queries, in blocks as the stage mines them. products: of a tile, that the rate is taken of."""
    if device == "cuda" and not torch.cuda.is_available():
        yield "on a GPU", "not measured: there is none here"
        return
    where = torch.cuda.get_device_name() if device == "cuda" else "CPU"
    rate = _rate(device, products)
    yield f"{where}: torch.mm alone", f"{rate / 1e12:,.2f} TFLOP/s"
    for rows in sizes:
        some, recipe = PairSet.drawn(rows, SHAPES[density]), InterleaveRecipe(device=device)
        engine = Products(some.pairs, rule_of(recipe), device)
        engine.mine(some.pairs.queries(np.arange(1)))  # warms up: the rows are there from now on
        took_s = seconds(partial(_mine_all, engine, rows, recipe.queries_per_task))
        share = 2 * 2 * float(rows) ** 2 * some.images.shape[1] / took_s / rate
        yield (
            f"{where}: {rows:,} rows, {density:.2%}",
            f"{took_s:,.1f} s, {share:.0%} of the rate of both sides' products",
        )
        projected = f"{took_s * (CCS / rows) ** 2 / 60:,.0f} minutes (target < 30 on one H200)"
        yield f"{where}: {CCS / 1e6:.0f} M rows at the same rate, not measured", projected


def _mine_all(engine: Products, rows: int, block: int) -> None:
    for first in range(0, rows, block):
        engine.mine(engine.pairs.queries(np.arange(first, min(first + block, rows))))


def _rate(device: Device, count: int) -> float:
    """FLOP/s of a tile's products, in the type in which the engine multiplies."""
    dtype, limits = (MATRIX_UNITS if device == "cuda" else FLOAT32).dtype, LIMITS[device]
    left, right = (torch.randn(size, 512, device=device).to(dtype) for size in (limits.queries, limits.tile_rows))
    out = torch.empty(len(left), len(right), device=device)

    def products() -> None:
        for _ in range(count):
            multiply(left, right, out)
        out[0, 0].item()  # the GPU has finished

    products()  # warms up
    return count * 2.0 * out.numel() * left.shape[1] / seconds(products)
