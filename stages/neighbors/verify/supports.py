"""The supports of a sample of queries, by brute force: float64 over every row of the corpora (Re-ViLM §4.2).

A candidate's image lies in the band of the query's and shows another picture; the k of the largest caption cosine are
the supports, and of equal ones those of the smallest rows.
Shapes: Q sampled queries, n rows, k supports.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from stages.neighbors.verify.databases import Databases
from stages.neighbors.verify.findings import Check, Findings
from stages.neighbors.verify.rules import RULES, Floats, Integers, Mask, rules_broken
from stages.neighbors.verify.sample import AT_ONCE, WIDENED, merge
from stages.neighbors.verify.samples import Rows, SamplesPlan

Found = Mapping[int, Sequence[int]]
"""Place of a query → the places of its supports; none: it has no sample."""


def check_sampled(drawn: Integers, found: Found, corpora: Databases, plan: SamplesPlan, findings: Findings) -> None:
    """drawn (Q,): places of the queries."""
    for first in range(0, len(drawn), AT_ONCE):
        queries = Rows.read(drawn[first : first + AT_ONCE], corpora)
        best, wanted = best_supports(queries, corpora, plan), _take_part(queries.pairs, plan)
        candidates = [[int(place) for place in row if place >= 0] for row in best]
        skipped = plan.supports if plan.on_starved == "skip" else 0
        right = [
            row if part and len(row) >= skipped else None for row, part in zip(candidates, wanted.tolist(), strict=True)
        ]
        _compare(queries, right, [found.get(place) for place in queries.place.tolist()], corpora, findings)


def best_supports(queries: Rows, corpora: Databases, plan: SamplesPlan) -> Integers:
    """→ (Q, k) places, best first; −1 behind the last."""
    images, captions = queries.images.astype(np.float64), queries.captions.astype(np.float64)
    place = np.full((len(images), plan.supports), -1, np.int64)
    best = np.full(place.shape, -np.inf)
    for start, span in zip(corpora.starts, corpora.spans, strict=False):
        pairs = span.pairs()
        for first in range(0, span.rows, WIDENED):
            rows = np.arange(first, min(first + WIDENED, span.rows))
            cosines = images @ span.keys(rows, "image").astype(np.float64).T
            similarity = captions @ span.keys(rows, "text").astype(np.float64).T
            similarity[~_candidates(queries.pairs, pairs.slice(first, WIDENED), cosines, plan)] = -np.inf
            place, best = merge(place, best, similarity, start + rows)
    return place


def _candidates(queries: pa.Table, rows: pa.Table, cosines: Floats, plan: SamplesPlan) -> Mask:
    """cosines (Q, n) of images → (Q, n)."""
    broken = rules_broken(queries, rows, cosines)
    forbidden = broken if plan.drop_same_caption else broken[: RULES.index("caption")]
    mask: Mask = plan.in_band(cosines) & _take_part(rows, plan)
    for rule in forbidden:
        mask &= ~rule
    return mask


def _take_part(pairs: pa.Table, plan: SamplesPlan) -> Mask:
    if not plan.sources:
        return np.ones(len(pairs), np.bool_)
    mask: Mask = pc.is_in(pairs["source"], pa.array(plan.sources)).to_numpy().astype(np.bool_)
    return mask


def _compare(
    queries: Rows,
    right: Sequence[Sequence[int] | None],
    found: Sequence[Sequence[int] | None],
    corpora: Databases,
    findings: Findings,
) -> None:
    """right and found (Q,): supports by place, in any order; None: no sample."""

    def tell(number: int) -> str:
        expected, listed, name = right[number], found[number], f"query {queries.pairs['pair_id'][number]}"
        if expected is None or listed is None:
            return f"{name}: has {'no sound' if listed is None else 'a'} sample"
        missing = [f"{corpora.pair_id(place)} is missing" for place in expected if place not in listed]
        wrong = [f"{corpora.pair_id(place)} is not one" for place in listed if place not in expected]
        return f"{name}: {', '.join(missing + wrong)}"

    pairs = zip(right, found, strict=True)
    findings.judge(Check.OPTIMAL, np.array([_members(one) != _members(other) for one, other in pairs], np.bool_), tell)


def _members(places: Sequence[int] | None) -> set[int] | None:
    return None if places is None else set(places)
