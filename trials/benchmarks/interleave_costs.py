"""The cost model of mining fitted to measured times: ns for a pair that comes to each step of the sweep, and for one of
all products. What is fitted is written down in stages/interleave/seen.py. Imports torch.
"""

import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np

from stages.interleave.band import Floats
from stages.interleave.engines import open_sweep, rule_of
from stages.interleave.kernel import STEPS
from stages.interleave.products import Products
from stages.interleave.recipe import InterleaveRecipe
from stages.interleave.seen import PRODUCTS_NS, sweep_ns
from stages.interleave.supports import Ids
from stages.interleave.sweep import LEADS, Lead
from trials.benchmarks.clock import seconds
from trials.benchmarks.interleave_speed import Line
from trials.benchmarks.interleave_vectors import SHAPES, PairSet
from trials.benchmarks.race import one_thread

BANDS = [
    InterleaveRecipe(metric=metric, hi=hi, device="cpu")
    for metric, hi in [("l2", 0.5), ("l2", 0.6), ("l2", 0.7), ("l2", 0.8), ("l2_squared", 0.6), ("cosine", 0.6)]
]
PRODUCTS_QUERIES = 1024


@dataclass(frozen=True)
class Swept:
    what: str
    passed: Ids  # of kernel.STEPS
    ns: float  # a pair

    @property
    def shares(self) -> Floats:
        shares: Floats = self.passed / self.passed[0]
        return shares


def costs(rows: int, block: int) -> Iterator[Line]:
    """Pairs of every density, every band, swept by each lead."""
    swept, products = [], []
    for density, shape in SHAPES.items():
        some = PairSet.drawn(rows, shape)
        with one_thread():
            for recipe in BANDS:
                swept += [_swept(f"{rows:,} rows, {density:.2%}", some, recipe, lead, block) for lead in LEADS]
                products.append(_products_ns(some, recipe))
    for one in swept:
        yield one.what, f"{one.ns:.1f} ns a pair; by the model {sweep_ns(one.passed):.1f}"
    told = f"{statistics.median(products):.1f} ns a pair ({min(products):.1f} to {max(products):.1f})"
    yield "all products", f"{told}; by the model {PRODUCTS_NS}"
    step_ns = fitted(np.array([one.shares for one in swept]), np.array([one.ns for one in swept]))
    yield "STEP_NS as fitted to these", ", ".join(f"{name} {ns:.3g}" for name, ns in zip(STEPS, step_ns, strict=True))


def _swept(what: str, some: PairSet, recipe: InterleaveRecipe, lead: Lead, block: int) -> Swept:
    sweep, queries = open_sweep(some.pairs, recipe, lead), some.pairs.queries(np.arange(min(block, len(some))))
    sweep.mine(queries.part(slice(1)))  # warms up
    began = time.monotonic()
    _, passed = sweep.count(queries)
    ns = 1e9 * (time.monotonic() - began) / passed[0]
    return Swept(f"{what}, {recipe.metric} {recipe.lo} to {recipe.hi}, {lead} leads", passed, ns)


def _products_ns(some: PairSet, recipe: InterleaveRecipe) -> float:
    engine, queries = Products(some.pairs, rule_of(recipe), "cpu"), some.pairs.queries(np.arange(PRODUCTS_QUERIES))
    return 1e9 * seconds(partial(engine.mine, queries)) / len(queries) / len(some)


def fitted(shares: Floats, ns: Floats) -> Floats:
    """shares (n, steps), ns (n,) → (steps,) of least relative squares, none below 0: a step that would be is free."""
    free = np.zeros(shares.shape[1], np.bool_)
    while True:
        step_ns = np.zeros(shares.shape[1])
        step_ns[~free] = np.linalg.lstsq((shares / ns[:, None])[:, ~free], np.ones(len(ns)), rcond=None)[0]
        if (step_ns >= 0).all():
            return step_ns
        free |= step_ns < 0
