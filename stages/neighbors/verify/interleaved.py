"""Five-pair samples: what they hold is true, and of the neighbours stored for each pair, those that break no rule
against any pair of the sample, all of which are targets, stand beside it.

Shapes: S samples, P pairs of all of them, n neighbours of all of these.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.commits import Committed, Whole
from pipeline.errors import InputError
from pipeline.schemas import SAMPLES
from stages.neighbors.verify.blocks import Holders, Listed, whole_table
from stages.neighbors.verify.databases import Databases
from stages.neighbors.verify.findings import LEAKS, Check, Findings
from stages.neighbors.verify.rows import check_entries, compare
from stages.neighbors.verify.rules import NO_RULE, Integers, Mask
from stages.neighbors.verify.samples import Members, SamplesPlan, check_supports, read_members
from stages.neighbors.verify.supports import check_sampled

LISTS = ("supports", "distances", "caption_similarities", "order", "pairs", "neighbors")


def verify_samples(
    root: str, neighbors: Whole, holders: Holders, databases: Databases, drawing: tuple[int, int], findings: Findings
) -> str:
    """drawing: how many queries are mined again, and the seed. → what was checked, in words. What is in memory grows
    with the samples of a shard, and the corpora are read once a shard.

    Raises InputError where a stage is not whole, or the samples hold neighbours of another root or pairs of a corpus
    that was made anew.
    """
    whole, plan = Whole.open(root, "interleaved"), SamplesPlan.of(root)
    _refuse_others(root, plan, neighbors)
    corpora = Databases.of_corpora(plan.corpora)
    count, seed = drawing
    drawn = np.random.default_rng(seed).choice(corpora.rows, min(count, corpora.rows), replace=False)
    seen, found = np.zeros(corpora.rows, np.bool_), dict[int, list[int]]()
    for samples in _tables(whole, findings):
        members = read_members(samples, plan, corpora, findings)
        if members:
            _check_once(members, seen, findings)
            check_supports(members, plan, findings)
            if plan.neighbors:
                check_neighbors(members, corpora, holders, databases, findings)
            found |= _supports_of(members, drawn)
    if findings.faults[Check.SAMPLE_FILES]:
        return "A shard of samples is broken: its samples were not checked, and no query was mined again."
    check_sampled(drawn, found, corpora, plan, findings)
    given = "for leaks against all their pairs" if plan.neighbors else "and hold no neighbours"
    return (
        f"All {whole.rows:,} five-pair samples were checked {given}.\n"
        f"Mined again by brute force over all {corpora.rows:,} pairs: {len(drawn):,} queries (seed {seed})."
    )


def check_neighbors(
    members: Members, corpora: Databases, holders: Holders, databases: Databases, findings: Findings
) -> None:
    shown = Listed.of(pc.list_flatten(members.samples["neighbors"].combine_chunks()), databases)
    stored = Listed.of(_stored(members, corpora, holders), databases)
    at = _find(shown, stored, databases.rows)
    name = partial(_name, members, shown)
    findings.judge(Check.STORED, at < 0, name)
    findings.judge(Check.STORED_ORDER, _turned(shown.query, at), name)
    known, left_out = shown.take(np.flatnonzero(shown.place >= 0)), stored.take(_without(stored, at))
    broken = _judge(members, known, left_out, databases, findings)
    findings.judge(Check.LEFT_OUT, ~broken, partial(_name, members, left_out))


def _judge(members: Members, shown: Listed, left_out: Listed, databases: Databases, findings: Findings) -> Mask:
    """Against every pair of their samples: neighbours that are shown are no leaks, and which of the others are."""
    place, owner = (np.concatenate([getattr(one, name) for one in (shown, left_out)]) for name in ("place", "query"))
    number, member = _every_pair(members.sample, members.sample[owner])
    broken, name = np.zeros(len(place), np.bool_), partial(_name, members, shown)
    for compared in compare(members.rows.pairs, members.rows.images, member, place[number], databases):
        some, asked = number[compared.numbers], member[compared.numbers]
        np.logical_or.at(broken, some, compared.rule != NO_RULE)
        visible = np.flatnonzero(some < len(shown.place))
        tell = partial(_against, members, shown, some[visible], asked[visible])
        for rule, check in enumerate(LEAKS):
            findings.judge(check, compared.rule[visible] == rule, tell)
        own = visible[owner[some[visible]] == asked[visible]]
        check_entries(shown.take(some[own]), compared.take(own), partial(_nth, name, some[own]), findings)
    return broken[len(shown.place) :]


def _stored(members: Members, corpora: Databases, holders: Holders) -> pa.Array:
    """(P,) the neighbours stored for each pair."""
    tables, order = [], []
    for span, numbers, rows in corpora.by_span(members.rows.place):
        file = f"neighbors_{span.committed.shard}"
        tables.append(holders[file][0].table(file, ["neighbors"]).take(rows))
        order.append(numbers)
    return pa.concat_tables(tables).take(np.argsort(np.concatenate(order)))["neighbors"].combine_chunks()


def _find(shown: Listed, stored: Listed, rows: int) -> Integers:
    """(n,) which stored neighbour of the same pair each one is; −1: none."""
    wanted, there = (listed.query * (rows + 1) + listed.place + 1 for listed in (shown, stored))
    distinct, first = np.unique(there, return_index=True)
    at = np.searchsorted(distinct, wanted)
    known = np.isin(wanted, distinct) & (shown.place >= 0)
    return np.where(known, np.append(first, -1)[at], -1)


def _without(stored: Listed, at: Integers) -> Integers:
    """Numbers of the stored neighbours that are not shown, and are rows of a database."""
    hidden = stored.place >= 0
    hidden[at[at >= 0]] = False
    return np.flatnonzero(hidden)


def _turned(query: Integers, at: Integers) -> Mask:
    """(n,): does a neighbour stand behind one that is stored behind it, or for the second time?"""
    both = (query[1:] == query[:-1]) & (at[1:] >= 0)
    return np.append(np.zeros(len(query[:1]), np.bool_), both & (at[1:] <= at[:-1]))


def _every_pair(sample_of: Integers, sample: Integers) -> tuple[Integers, Integers]:
    """Each neighbour with each pair of its sample: the neighbours' numbers and the pairs' numbers."""
    first, last = np.searchsorted(sample_of, sample, "left"), np.searchsorted(sample_of, sample, "right")
    sizes = last - first
    number = np.repeat(np.arange(len(sample)), sizes)
    within = np.arange(len(number)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return number, first[number] + within


def _name(members: Members, listed: Listed, number: int) -> str:
    member = int(listed.query[number])
    return f"{members.name(member)}: neighbour {listed.entries['pair_id'][number]} of {members.pair_id(member)}"


def _against(members: Members, listed: Listed, numbers: Integers, asked: Integers, row: int) -> str:
    return f"{_name(members, listed, int(numbers[row]))} against {members.pair_id(int(asked[row]))}"


def _nth(name: Callable[[int], str], numbers: Integers, row: int) -> str:
    return name(int(numbers[row]))


def _check_once(members: Members, seen: Mask, findings: Findings) -> None:
    """seen (N,): pairs of the corpora that are some sample's query; changed in place."""
    place = members.rows.place[members.queries]
    _, first = np.unique(place, return_index=True)
    again = seen[place]
    again[np.delete(np.arange(len(place)), first)] = True
    seen[place] = True
    findings.judge(Check.SAMPLE_ONCE, again, lambda number: members.name(int(members.queries[number])))


def _supports_of(members: Members, drawn: Integers) -> Mapping[int, list[int]]:
    place, queries = members.rows.place, members.queries
    firsts = np.append(0, queries[:-1] + 1)
    asked = np.flatnonzero(np.isin(place[queries], drawn))
    return {int(place[queries[n]]): place[firsts[n] : queries[n]].tolist() for n in asked}


def _tables(whole: Whole, findings: Findings) -> Iterator[pa.Table]:
    """SAMPLES of every shard that can be read; what cannot is among the findings."""
    for shard in whole.shards:
        try:
            table = _read(whole.read(shard))
        except (InputError, FileNotFoundError) as error:
            findings.refuse(Check.SAMPLE_FILES, f"{shard}: {error}")
            continue
        findings.accept(Check.SAMPLE_FILES)
        if table.num_rows:
            yield table


def _read(committed: Committed) -> pa.Table:
    """Raises InputError where the file is not whole, has other columns, or lists a null."""
    table = whole_table(committed, "samples", SAMPLES, "SAMPLES")
    listed = {name: pc.list_flatten(table[name]) for name in LISTS}
    for name, values in (*listed.items(), ("neighbors", pc.list_flatten(listed["neighbors"]))):
        if values.null_count:
            raise InputError(f"{committed.entry('samples').path} lists a null among its {name}")
    return table


def _refuse_others(root: str, plan: SamplesPlan, neighbors: Whole) -> None:
    mined = Whole.open(root, "interleave_mine")
    for number, corpus in enumerate(plan.corpora):
        made_of, found = mined.manifest.inputs[f"corpus {number}"], Whole.open(corpus, "corpus").identity
        if found != made_of:
            raise InputError(
                f"{corpus}/corpus is not the one that the samples in {root} were mined from: its identity was "
                f"{made_of[:12]} and is {found[:12]}. Make the samples anew."
            )
    asking = neighbors.manifest.inputs["corpus"]
    if plan.neighbors and [Whole.open(corpus, "corpus").identity for corpus in plan.corpora] != [asking]:
        raise InputError(f"the samples in {root} are of other pairs than those that the neighbours were found for")
    if plan.neighbors:
        given = Whole.open(root, "interleave_neighbors").manifest.inputs["neighbors"]
        if given != neighbors.identity:
            raise InputError(
                f"the samples in {root} hold other neighbours than those in {neighbors.folder.root}: their identity is "
                f"{given[:12]}, and that of these {neighbors.identity[:12]}. Name the root that they were made with."
            )
