"""Five-pair samples: no neighbour of any of its pairs breaks a rule against any of them, for all five are targets.
The rules are asked of a neighbour's row, so its pair id and caption, which a trainer reads, have to be that row's.

Shapes: S samples, P pairs of all samples, n neighbours of all samples.
"""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import InputError
from stages.neighbors.verify.databases import Databases, Span
from stages.neighbors.verify.findings import LEAKS, Check, Findings
from stages.neighbors.verify.rows import check_told, compare
from stages.neighbors.verify.rules import Integers, Vectors

COLUMNS = ("pair_id", "supports", "neighbors")


def check_samples(samples: pa.Table, corpus: Sequence[Span], databases: Databases, findings: Findings) -> None:
    """samples (S,): pair_id of the query, supports (a list of pair ids), neighbors (for each of its pairs, a list of
    neighbours as in NEIGHBORS). The corpora are read once, and what is in memory grows with S.

    Raises InputError where a pair is not in the corpus.
    """
    pair_ids, sample_of = _members(samples)
    pairs, images = _find(pair_ids, corpus)
    lists = samples["neighbors"].combine_chunks()
    neighbors = pc.list_flatten(lists, recursive=True)
    database, row_id = (neighbors.field(name).to_numpy() for name in ("database", "row_id"))
    place, sample = databases.places(database, row_id), _parents(lists)

    def name(number: int) -> str:
        return f"sample {samples['pair_id'][sample[number]]}: neighbour {neighbors.field('pair_id')[number]}"

    findings.judge(Check.IDS, place < 0, name)
    known = np.flatnonzero(place >= 0)
    member, number = _every_pair(sample_of, sample[known])
    number = known[number]
    is_query = np.diff(sample_of, prepend=-1) > 0
    entries = pa.Table.from_struct_array(neighbors)
    for compared in compare(pairs, images, member, place[number], databases):
        once = np.flatnonzero(is_query[member[compared.numbers]])
        some = number[compared.numbers[once]]
        check_told(entries.take(some), compared.others.take(once), partial(_nth, name, some), findings)
        tell = partial(_told, name, pair_ids, number[compared.numbers], member[compared.numbers])
        for rule, check in enumerate(LEAKS):
            findings.judge(check, compared.rule == rule, tell)


def _nth(name: Callable[[int], str], number: Integers, row: int) -> str:
    return name(int(number[row]))


def _told(name: Callable[[int], str], pair_ids: pa.Array, number: Integers, member: Integers, row: int) -> str:
    return f"{name(int(number[row]))} against {pair_ids[int(member[row])]}"


def _members(samples: pa.Table) -> tuple[pa.Array, Integers]:
    """→ (P,) the pair ids of all samples, and (P,) the sample of each, ascending."""
    supports = samples["supports"].combine_chunks()
    pair_ids = pa.concat_arrays([samples["pair_id"].combine_chunks(), pc.list_flatten(supports)])
    sample_of = np.concatenate([np.arange(samples.num_rows), pc.list_parent_indices(supports).to_numpy()])
    order = np.argsort(sample_of, kind="stable")
    return pair_ids.take(order), sample_of[order]


def _find(pair_ids: pa.Array, corpus: Sequence[Span]) -> tuple[pa.Table, Vectors]:
    """(P,) → (P,) their rows of the corpus, and (P, D) their images."""
    tables, images, found = [], [], []
    for span in corpus:
        row = pc.index_in(pair_ids, span.committed.table("metadata", ["pair_id"])["pair_id"].combine_chunks())
        here = np.flatnonzero(row.is_valid().to_numpy(zero_copy_only=False))
        rows = row.drop_null().to_numpy().astype(np.int64)
        tables.append(span.pairs(rows))
        images.append(span.images(rows))
        found.append(here)
    order = np.concatenate(found)
    lost = np.setdiff1d(np.arange(len(pair_ids)), order)
    if len(lost):
        raise InputError(f"pair {pair_ids[int(lost[0])]} of a sample is not in the corpus ({len(lost):,} such pairs)")
    back = np.argsort(order)
    return pa.concat_tables(tables).take(back), np.concatenate(images)[back]


def _parents(lists: pa.Array) -> Integers:
    """(n,) the sample of each neighbour."""
    outer, inner = pc.list_parent_indices(lists), pc.list_parent_indices(pc.list_flatten(lists))
    sample: Integers = outer.take(inner).to_numpy()
    return sample


def _every_pair(sample_of: Integers, sample: Integers) -> tuple[Integers, Integers]:
    """Each neighbour with each pair of its sample: the pairs' numbers and the neighbours' numbers."""
    first, last = np.searchsorted(sample_of, sample, "left"), np.searchsorted(sample_of, sample, "right")
    sizes = last - first
    number = np.repeat(np.arange(len(sample)), sizes)
    within = np.arange(len(number)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return first[number] + within, number
