"""Every row that can be read: what it lists is true, in order, and keeps the rules."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from stages.neighbors.verify.blocks import Block, Listed
from stages.neighbors.verify.databases import Databases
from stages.neighbors.verify.findings import LEAKS, Check, Findings
from stages.neighbors.verify.rules import Floats, Integers, Mask, Vectors, broken_rule, inner_products

WIDENED = 8192  # pairs of vectors that are compared at once: 64 MiB at width 512


@dataclass(frozen=True)
class Compared:
    """m of n pairs of a query and a database row."""

    numbers: Integers  # (m,) which of the n
    others: pa.Table  # (m,) the database rows' COLUMNS
    similarity: Floats  # (m,)
    rule: Integers  # (m,) the first that is broken, or NO_RULE
    alive: Mask  # (m,)

    def take(self, chosen: Integers) -> "Compared":
        numbers, others = self.numbers[chosen], self.others.take(chosen)
        return Compared(numbers, others, self.similarity[chosen], self.rule[chosen], self.alive[chosen])


def compare(
    pairs: pa.Table, images: Vectors, query: Integers, place: Integers, databases: Databases
) -> Iterator[Compared]:
    """pairs (B,) and images (B, D); query (n,) of them against place (n,) → all n, each database shard read once."""
    for span, numbers, rows in databases.by_span(place):
        distinct, which = np.unique(rows, return_inverse=True)
        others = span.pairs(distinct)
        for start in range(0, len(rows), WIDENED):
            some = slice(start, start + WIDENED)
            asked = query[numbers[some]]
            found, asked_images = others.take(which[some]), images[asked]
            yield Compared(
                numbers[some],
                found,
                inner_products(asked_images, span.keys(rows[some], databases.key)),
                broken_rule(pairs.take(asked), found, asked_images, span.images(rows[some])),
                span.may_be_found(rows[some]),
            )


def check_rows(block: Block, databases: Databases, k: int, findings: Findings) -> None:
    listed = Listed.of(block.lists, databases)
    _check_sizes(block, listed, k, findings)
    listed = _check_ids(block, listed, findings)
    similarity = np.empty(len(listed.place))
    for compared in compare(block.pairs, block.images, listed.query, listed.place, databases):
        similarity[compared.numbers] = compared.similarity
        _check_neighbors(block, listed.take(compared.numbers), compared, findings)
    _check_order(block, listed, similarity, findings)
    _check_repeats(block, listed, findings)


def _check_sizes(block: Block, listed: Listed, k: int, findings: Findings) -> None:
    sizes = np.bincount(listed.query, minlength=block.rows)
    shortfall = block.listed["shortfall"].to_numpy()
    findings.judge(
        Check.SIZES,
        (sizes + shortfall != k) | (shortfall < 0),
        lambda row: f"{block.name(row)}: {sizes[row]} neighbours and a shortfall of {shortfall[row]}, where k is {k}",
    )


def _check_ids(block: Block, listed: Listed, findings: Findings) -> Listed:
    """→ those that are rows of a database."""

    def tell(number: int) -> str:
        entry = {name: listed.entries[name][number].as_py() for name in ("pair_id", "database", "row_id")}
        query = block.name(int(listed.query[number]))
        return f"{query}: neighbour {entry['pair_id']}: database {entry['database']} has no row {entry['row_id']}"

    findings.judge(Check.IDS, listed.place < 0, tell)
    return listed.take(np.flatnonzero(listed.place >= 0))


def _check_neighbors(block: Block, listed: Listed, compared: Compared, findings: Findings) -> None:
    """listed and compared: the same m neighbours."""

    def name(number: int) -> str:
        return f"{block.name(int(listed.query[number]))}: neighbour {compared.others['pair_id'][number]}"

    check_entries(listed, compared, name, findings)
    for rule, check in enumerate(LEAKS):
        findings.judge(check, compared.rule == rule, name)


def check_entries(listed: Listed, compared: Compared, name: Callable[[int], str], findings: Findings) -> None:
    """listed and compared: the same m neighbours, with the queries that they are listed for."""
    said = listed.entries["similarity"].to_numpy()
    exact = compared.similarity.astype(np.float32)
    findings.judge(
        Check.SIMILARITY, said != exact, lambda number: f"{name(number)}: {said[number]} instead of {exact[number]}"
    )
    findings.judge(Check.ALIVE, ~compared.alive, name)
    for check, column in ((Check.PAIR_IDS, "pair_id"), (Check.CAPTIONS, "caption")):
        found, true = (table[column].combine_chunks() for table in (listed.entries, compared.others))
        told = partial(_told, name, found, true)
        findings.judge(check, pc.not_equal(found, true).to_numpy(zero_copy_only=False), told)


def _told(name: Callable[[int], str], found: pa.Array, true: pa.Array, number: int) -> str:
    return f"{name(number)}: {found[number]} instead of {true[number]}"


def _check_order(block: Block, listed: Listed, similarity: Floats, findings: Findings) -> None:
    """By similarity, ties by place. similarity: (n,) exact."""
    query, place, entries = listed.query, listed.place, listed.entries
    ties = similarity[:-1] == similarity[1:]
    turned = (similarity[:-1] < similarity[1:]) | (ties & (place[:-1] > place[1:]))
    at = _row_of(block, query, np.flatnonzero(turned & (query[:-1] == query[1:])))
    findings.judge(
        Check.ORDER,
        at >= 0,
        lambda row: (
            f"{block.name(row)}: neighbour {entries['pair_id'][at[row]]} stands before "
            f"{entries['pair_id'][at[row] + 1]} ({similarity[at[row]]:.6f} before {similarity[at[row] + 1]:.6f})"
        ),
    )


def _check_repeats(block: Block, listed: Listed, findings: Findings) -> None:
    order = np.lexsort((listed.place, listed.query))
    query, place = listed.query[order], listed.place[order]
    at = _row_of(block, query, np.flatnonzero((query[:-1] == query[1:]) & (place[:-1] == place[1:])))
    findings.judge(
        Check.TWICE,
        at >= 0,
        lambda row: f"{block.name(row)}: neighbour {listed.entries['pair_id'][order[at[row]]]} is listed twice",
    )


def _row_of(block: Block, query: Integers, numbers: Integers) -> Integers:
    """(B,) for each row of the block, one of the numbers of its neighbours; −1: none."""
    at = np.full(block.rows, -1, np.int64)
    at[query[numbers]] = numbers
    return at
