"""Mining beside its rivals, one thread each, and beside the bare products that it cannot do without. Imports torch."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial

import numpy as np
import torch

from stages.interleave.axes import Single
from stages.interleave.band import Band, Metric
from stages.interleave.engines import engine_for, open_sweep, rule_of
from stages.interleave.recipe import InterleaveRecipe
from stages.interleave.seen import PRODUCTS_NS, EngineName, sweep_ns
from stages.interleave.supports import Engine, Ids, Queries, Supports
from stages.interleave.sweep import LEADS, QUERIES, TILE_ROWS
from trials.benchmarks.clock import seconds
from trials.benchmarks.interleave_rivals import Ranged, Rival, Tiled, brute_force, differences
from trials.benchmarks.interleave_vectors import SHAPES, PairSet, Statistics
from trials.benchmarks.race import Works, one_thread, raced, ratios, spread

Line = tuple[str, str]
SEED = 4
MOST_STARVED = 0.05
PROBED = 250  # queries that the engine is chosen with, and how many lists an inverted file looks into
SHARE = 0.999  # of the band that an inverted file has to find
TILED = "tiled products"
TARGETS = {"FAISS Flat": "≥ 3, goal 6"}
TILED_TARGETS = {0.0003: "≥ 4", 0.001: "≥ 5, goal 8", 0.01: "≥ 2.5"}  # by the density of the band
NOTHING = Band("cosine", -2, -1)  # no cosine is as large


@dataclass(frozen=True)
class Case:
    """Pairs, a band, and what mining it is compared with."""

    rows: int
    density: float
    metric: Metric = "l2"
    sampled: int = 2048  # seeded queries, of rivals and of brute force
    block: int = 20_000  # queries at once, as the stage mines them
    factories: tuple[str, ...] = ()  # of FAISS's indexes
    repetitions: int = 5

    def __str__(self) -> str:
        return f"{self.rows:,} rows, {self.density:.2%}" + ("" if self.metric == "l2" else f", {self.metric}")

    @cached_property
    def some(self) -> PairSet:
        return PairSet.drawn(self.rows, SHAPES[self.density])

    @cached_property
    def ids(self) -> Ids:
        """Sampled."""
        return np.sort(np.random.default_rng(SEED).permutation(self.rows)[: self.sampled])

    @cached_property
    def queries(self) -> Queries:
        """A block."""
        return self.some.pairs.queries(np.arange(min(self.block, self.rows)))

    @property
    def recipe(self) -> InterleaveRecipe:
        return InterleaveRecipe(metric=self.metric, device="cpu")

    @cached_property
    def cheapest(self) -> tuple[float, EngineName]:
        """What `auto` takes by a probe, after its modelled cost."""
        queries = self.some.pairs.queries(self.ids[:PROBED])
        leads = [(sweep_ns(open_sweep(self.some.pairs, self.recipe, lead).count(queries)[1]), lead) for lead in LEADS]
        return min(*leads, (PRODUCTS_NS, "products"))

    @cached_property
    def engine(self) -> Engine:
        return engine_for(self.some.pairs, self.recipe, self.cheapest[1])

    @cached_property
    def rivals(self) -> dict[str, Rival]:
        rule = rule_of(self.recipe)
        ranged = {f"FAISS {factory}": Ranged(self.some, rule, factory) for factory in self.factories}
        return {TILED: Tiled(self.some, rule), **ranged}

    def target(self, rival: str) -> str:
        if self.metric != "l2":
            return ""
        target = TILED_TARGETS[self.density] if rival == TILED else TARGETS.get(rival, "> 1")
        return f" (target {target})"


def compare(case: Case) -> Iterator[Line]:
    """The engine that `auto` takes, and every rival."""
    for what, figure in _compared(case):
        yield f"{case}: {what}", figure


def _compared(case: Case) -> Iterator[Line]:
    told = Statistics.of(case.some, case.recipe.band, case.recipe.supports)
    yield "the pairs", str(told)
    if told.starved > MOST_STARVED:
        yield "no measurement of speed", f"more than {MOST_STARVED:.0%} of the queries starve"
        return
    exact = brute_force(case.some, case.ids, rule_of(case.recipe))
    with one_thread():
        yield from _ours(case, exact)
        for name, rival in case.rivals.items():
            yield from _rivals(case, name, rival, exact)
        yield from _raced(case)


def _ours(case: Case, exact: Supports) -> Iterator[Line]:
    cost_ns, name = case.cheapest
    yield "auto takes", f"{name}; modelled {cost_ns:.1f} ns a pair"
    yield "ours: preparation", f"{seconds(lambda: case.engine):.1f} s"
    found = case.engine.mine(case.some.pairs.queries(case.ids))
    assert all(map(np.array_equal, vars(found).values(), vars(exact).values())), f"{case}: ours differs"
    yield "ours equals float64 brute force", f"rows and both cosines of all {len(case.ids):,} sampled queries"


def _rivals(case: Case, name: str, rival: Rival, exact: Supports) -> Iterator[Line]:
    """Made ready, and its answers compared."""
    yield f"{name}: preparation", f"{seconds(rival.prepare):.1f} s"
    if isinstance(rival, Ranged) and not rival.exhaustive:
        flat = Ranged(case.some, rival.rule, "Flat")
        rival.probe(SHARE, flat, case.ids[:PROBED])
        share = rival.in_band(case.ids) / flat.in_band(case.ids)
        yield f"{name}: share of the band found, nprobe {rival.index.nprobe}", f"{share:.3%}"
    told = differences(case.some, case.ids, rival.rows(case.ids), exact, case.recipe.band)
    assert told.others == 0 or not rival.exhaustive, f"{case}: {name} differs from brute force: {told}"
    yield f"{name}: queries with other supports than the exact ones", str(told)


def _raced(case: Case) -> Iterator[Line]:
    works: Works = {
        "ours": (partial(case.engine.mine, case.queries), len(case.queries)),
        **{name: (partial(rival.rows, case.ids), len(case.ids)) for name, rival in case.rivals.items()},
    }
    times = raced(works, case.rows, case.repetitions)
    for name, (_, queries) in works.items():
        yield f"{name}, {queries:,} queries", spread(times[name], "{:.2f}") + " ns a pair"
    for name in case.rivals:
        yield f"ratio of {name} to ours", spread(ratios(times[name], times["ours"])) + case.target(name)


def linear(case: Case) -> Iterator[Line]:
    """Whether the rival's time may be scaled by its queries."""
    tiled, ids = Tiled(case.some, rule_of(case.recipe)), np.arange(min(2 * case.sampled, case.rows))
    tiled.prepare()
    with one_thread():
        works: Works = {str(len(some)): (partial(tiled.rows, some), len(some)) for some in (ids[::2], ids)}
        half, whole = raced(works, case.rows, case.repetitions).values()
    yield (
        f"{case}: {TILED}, ns a pair with {len(ids):,} queries to that with half of them",
        spread(ratios(whole, half)),
    )


def alone(case: Case) -> Iterator[Line]:
    """The sweep led by images beside torch.mm of the same bounds, tile by tile as the sweep takes them."""
    sweep = open_sweep(case.some.pairs, case.recipe, "image")
    nothing = replace(sweep, rule=replace(sweep.rule, band=NOTHING))
    bound, halves = sweep.image_axes.bound, [tile.images for tile in case.some.pairs.tiles(TILE_ROWS)]
    left = bound(case.queries.images.astype(np.float32), "left")
    tiles = [bound(half.astype(np.float32), "right") for half in halves]
    with one_thread():
        nothing.mine(case.queries.part(slice(1)))  # warms up
        bare = partial(_multiply, left, tiles)
        mining = {"bounds and comparison": nothing, "the whole sweep": sweep}
        works = {"torch.mm": bare} | {name: partial(some.mine, case.queries) for name, some in mining.items()}
        times = raced({name: (do, len(left)) for name, do in works.items()}, case.rows, case.repetitions)
    yield f"{case}: torch.mm of the bounds, width {left.shape[1]}", spread(times["torch.mm"], "{:.2f}") + " ns a pair"
    for name in mining:
        share = spread(ratios(times["torch.mm"], times[name]), "{:.0%}")
        yield f"{case}: torch.mm as a share of {name}", f"{share} (target ≥ 60%)"


def _multiply(left: Single, tiles: Sequence[Single]) -> None:
    queries = torch.split(torch.from_numpy(left), QUERIES)
    room = torch.empty(QUERIES * TILE_ROWS)
    for tile in tiles:
        right = torch.from_numpy(tile).T
        for some in queries:
            torch.mm(some, right, out=room[: len(some) * len(tile)].view(len(some), len(tile)))
