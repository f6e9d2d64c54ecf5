"""A sample of rows, by brute force: float64 over every row of every database, then the rules.

Shapes: S sampled rows, D width, C candidates that are looked at.
"""

from dataclasses import dataclass

import numpy as np

from stages.neighbors.verify.blocks import Block, Listed
from stages.neighbors.verify.databases import Databases, SearchPlan
from stages.neighbors.verify.findings import Check, Findings
from stages.neighbors.verify.rows import compare
from stages.neighbors.verify.rules import NO_RULE, RULES, Floats, Integers, Mask

AT_ONCE = 1024  # sampled rows
WIDENED = 8192  # database rows: 64 MiB of similarities


@dataclass(frozen=True)
class Best:
    """The first C candidates of each row, by similarity, then place."""

    place: Integers  # (S, C) −1 where there are no more
    similarity: Floats  # (S, C)
    kept: Mask  # (S, C) the first k that break no rule
    removed: Integers  # (S, rules) before the k-th kept, or among all C


def check_sample(block: Block, databases: Databases, plan: SearchPlan, findings: Findings) -> Floats:
    """→ the recall of each row that has something to find, where the search was approximate; else none."""
    shares = [np.empty(0)]
    for start in range(0, block.rows, AT_ONCE):
        part = block.take(np.arange(start, min(start + AT_ONCE, block.rows)))
        listed, best = Listed.of(part.lists, databases), judge_candidates(part, databases, plan)
        listed = listed.take(np.flatnonzero(listed.place >= 0))
        if plan.engine == "index":
            shares.append(_recall(part, listed, best, databases))
        else:
            _check_members(part, listed, best, databases, findings)
            _check_removed(part, best, findings)
    return np.concatenate(shares)


def judge_candidates(block: Block, databases: Databases, plan: SearchPlan) -> Best:
    place, similarity = nearest(block, databases, min(plan.depth, databases.rows))
    there = place >= 0
    query, rank = np.nonzero(there)
    rule = np.full(place.shape, NO_RULE)
    for compared in compare(block.pairs, block.images, query, place[there], databases):
        rule[query[compared.numbers], rank[compared.numbers]] = compared.rule
    free = there & (rule == NO_RULE)
    looked_at = there & (np.cumsum(free, axis=1) - free < plan.k)
    removed = np.stack([(looked_at & (rule == number)).sum(axis=1) for number in range(NO_RULE)], axis=1)
    return Best(place, similarity, free & looked_at, removed)


def nearest(block: Block, databases: Databases, depth: int) -> tuple[Integers, Floats]:
    """→ (S, C) places and similarities of the first `depth` rows that may be found; −1 and −inf where there are no
    more."""
    queries = block.images.astype(np.float64)
    place = np.full((block.rows, depth), -1, np.int64)
    best = np.full((block.rows, depth), -np.inf)
    for start, span in zip(databases.starts, databases.spans, strict=False):
        for first in range(0, span.rows, WIDENED):
            rows = np.arange(first, min(first + WIDENED, span.rows))
            rows = rows[span.may_be_found(rows)]
            similarity = queries @ span.keys(rows, databases.key).astype(np.float64).T
            place, best = merge(place, best, similarity, start + rows)
    return place, best


def merge(place: Integers, best: Floats, similarity: Floats, new: Integers) -> tuple[Integers, Floats]:
    """similarity (S, m) of the places new (m,), which are larger than those so far: they lose every tie."""
    num, depth = place.shape
    query, column = np.nonzero(similarity > best[:, -1:])
    queries = np.concatenate([np.repeat(np.arange(num), depth), query])
    places = np.concatenate([place.ravel(), new[column]])
    similarities = np.concatenate([best.ravel(), similarity[query, column]])
    order = np.lexsort((places, -similarities, queries))
    first = np.searchsorted(queries[order], np.arange(num))
    kept = order[first[:, None] + np.arange(depth)]
    return places[kept], similarities[kept]


def _check_members(block: Block, listed: Listed, best: Best, databases: Databases, findings: Findings) -> None:
    right = [set(place[kept].tolist()) for place, kept in zip(best.place, best.kept, strict=True)]
    found: list[set[int]] = [set() for _ in right]
    for query, place in zip(listed.query.tolist(), listed.place.tolist(), strict=True):
        found[query].add(place)

    def tell(row: int) -> str:
        missing = [f"{databases.pair_id(place)} is missing" for place in sorted(right[row] - found[row])]
        wrong = [f"{databases.pair_id(place)} is not one" for place in sorted(found[row] - right[row])]
        return f"{block.name(row)}: {', '.join(missing + wrong)}"

    findings.judge(Check.MEMBERS, np.array([one != other for one, other in zip(right, found, strict=True)]), tell)


def _check_removed(block: Block, best: Best, findings: Findings) -> None:
    column = block.listed["removed"].combine_chunks()
    said = np.column_stack([column.field(rule).to_numpy() for rule in RULES])
    findings.judge(
        Check.REMOVED,
        (said != best.removed).any(axis=1),
        lambda row: f"{block.name(row)}: {_told(said[row])} instead of {_told(best.removed[row])}",
    )


def _told(removed: Integers) -> str:
    return ", ".join(f"{rule} {number}" for rule, number in zip(RULES, removed, strict=True))


def _recall(block: Block, listed: Listed, best: Best, databases: Databases) -> Floats:
    """A result is a hit when its exact similarity reaches the exact k-th (or the last, where there are fewer)."""
    there = best.kept.sum(axis=1)
    last = np.where(best.kept, best.similarity, np.inf).min(axis=1, initial=np.inf)
    hits = np.zeros(block.rows, np.int64)
    for compared in compare(block.pairs, block.images, listed.query, listed.place, databases):
        query = listed.query[compared.numbers]
        np.add.at(hits, query, compared.similarity >= last[query])
    asked = there > 0
    shares: Floats = np.minimum(hits, there)[asked] / there[asked]
    return shares
