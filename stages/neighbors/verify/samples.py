"""Five-pair samples: what their rows tell of the query and its supports is true, and within the band (Re-ViLM §4.2).

Shapes: S samples, P pairs of all of them, m supports of all of them, D width.
"""

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.commits import Whole
from stages.neighbors.verify.databases import Databases, Said
from stages.neighbors.verify.findings import Check, Findings
from stages.neighbors.verify.rules import RULES, Floats, Integers, Mask, Vectors, broken_rule, inner_products

PICTURE = ("input", "shard", "offset", "bytes")  # where it lies
TOLD = ("pair_id", "caption", *PICTURE)  # of a pair in a sample

Singles = npt.NDArray[np.float32]


class SamplesPlan(Said):
    """What the plans say that the samples were made by."""

    metric: Literal["l2", "l2_squared", "cosine"]
    lo: float
    hi: float
    supports: int
    drop_same_caption: bool
    sources: tuple[str, ...]  # whose pairs take part; none: all
    on_starved: Literal["skip", "short"]
    corpora: tuple[str, ...]  # roots
    neighbors: bool  # are there any?

    @classmethod
    def of(cls, root: str) -> "SamplesPlan":
        """Raises InputError where the stages are not whole, or their plans say too little."""
        mined, made = (Whole.open(root, stage).plan() for stage in ("interleave_mine", "interleaved"))
        settings = mined.parts["settings"] | made.parts["settings"] | mined.resolved
        given = {"neighbors": "interleave_neighbors" in made.parts["inputs"]}
        return cls.read(settings | given, f"{root}/interleave_mine/plan.json")

    @property
    def cosines(self) -> tuple[float, float]:
        """The lowest and the highest in the band, of the decimal numbers that lo and hi are written as."""
        lowest, highest = (self._cosine(Fraction(str(distance))) for distance in (self.hi, self.lo))
        return lowest, highest

    def in_band(self, cosines: Floats) -> Mask:
        lowest, highest = self.cosines
        mask: Mask = (cosines >= lowest) & (cosines <= highest)
        return mask

    def distances(self, cosines: Floats) -> Floats:
        """0 where rounded vectors make a cosine above 1."""
        cosine = np.maximum(1 - cosines, 0)
        distances: Floats = {"cosine": cosine, "l2_squared": 2 * cosine, "l2": np.sqrt(2 * cosine)}[self.metric]
        return distances

    def _cosine(self, distance: Fraction) -> float:
        """‖x−y‖² = 2 − 2 x·y of unit vectors."""
        squared = {"cosine": 2 * distance, "l2_squared": distance, "l2": distance**2}[self.metric]
        return float(1 - squared / 2)


@dataclass(frozen=True)
class Rows:
    """Rows of the corpora, by place."""

    place: Integers  # (n,)
    pairs: pa.Table  # (n,) COLUMNS, caption_key and PICTURE
    images: Vectors  # (n, D)
    captions: Vectors  # (n, D)

    @classmethod
    def read(cls, places: Integers, corpora: Databases) -> "Rows":
        """Each shard of the corpora is read once."""
        shape = len(places), corpora.width
        images, captions = np.empty(shape, np.float16), np.empty(shape, np.float16)
        tables, order = [], []
        for span, numbers, rows in corpora.by_span(places):
            tables.append(span.pairs(rows, PICTURE))
            images[numbers], captions[numbers] = span.keys(rows, "image"), span.keys(rows, "text")
            order.append(numbers)
        pairs = pa.concat_tables(tables).take(np.argsort(np.concatenate(order))).combine_chunks()
        return cls(places, pairs, images, captions)


@dataclass(frozen=True)
class Members:
    """All pairs of S samples, in sample order: each sample's query last."""

    samples: pa.Table  # (S,) SAMPLES
    sample: Integers  # (P,) ascending
    rows: Rows  # (P,)

    @property
    def queries(self) -> Integers:
        """(S,) numbers of pairs."""
        return np.flatnonzero(np.diff(self.sample, append=len(self.samples)))

    def name(self, member: int) -> str:
        """The sample, by its query."""
        return f"sample {self.samples['pair_id'][int(self.sample[member])]}"

    def pair_id(self, member: int) -> str:
        return str(self.rows.pairs["pair_id"][member])


def read_members(samples: pa.Table, plan: SamplesPlan, corpora: Databases, findings: Findings) -> Members | None:
    """Of the samples whose columns agree and whose pairs are rows of the corpora; None where there are none."""
    samples = samples.filter(pa.array(~_check_columns(samples, plan, findings)))
    pairs = samples["pairs"].combine_chunks()
    flat, sample = pc.list_flatten(pairs), pc.list_parent_indices(pairs).to_numpy().astype(np.int64)
    place = corpora.places(flat.field("corpus").to_numpy(), flat.field("row_id").to_numpy())
    lost = np.isin(np.arange(len(samples)), sample[place < 0])

    def tell(number: int) -> str:
        return f"sample {samples['pair_id'][number]}: one of its pairs is no row of the corpus"

    findings.judge(Check.SAMPLE_ROWS, lost, tell)
    here = ~lost[sample]
    if not here.any():
        return None
    _, number = np.unique(sample[here], return_inverse=True)
    members = Members(samples.filter(pa.array(~lost)).combine_chunks(), number, Rows.read(place[here], corpora))
    _check_pairs(flat.filter(pa.array(here)), members, findings)
    return members


def _check_columns(samples: pa.Table, plan: SamplesPlan, findings: Findings) -> Mask:
    """(S,): do the columns contradict each other?"""
    columns = ["pair_id", "supports", "distances", "caption_similarities", "order"]
    told = zip(samples.select(columns).to_pylist(), samples["pairs"].to_pylist(), strict=True)
    wrong = np.array([not _agree(**row, pairs=[pair["pair_id"] for pair in pairs]) for row, pairs in told], np.bool_)
    lists, pairs = (pc.list_value_length(samples[name]).fill_null(-1).to_numpy() for name in ("neighbors", "pairs"))
    wrong |= lists != (pairs if plan.neighbors else -1)
    findings.judge(Check.SAMPLE_COLUMNS, wrong, lambda number: f"sample {samples['pair_id'][number]}")
    return wrong


def _agree(
    *,
    pair_id: str,
    supports: list[str],
    distances: list[float],
    caption_similarities: list[float],
    order: list[int],
    pairs: list[str],
) -> bool:
    if not len(supports) == len(distances) == len(caption_similarities):
        return False
    return sorted(order) == [*range(len(supports))] and pairs == [*(supports[place] for place in order), pair_id]


def _check_pairs(told: pa.StructArray, members: Members, findings: Findings) -> None:
    """told (P,): of the pairs, beside the rows that they name."""
    differs = [pc.not_equal(told.field(name), members.rows.pairs[name]).to_numpy().astype(np.bool_) for name in TOLD]

    def tell(member: int) -> str:
        name = next(name for name, other in zip(TOLD, differs, strict=True) if other[member])
        found, true = told.field(name)[member], members.rows.pairs[name][member]
        return f"{members.name(member)}: {name} {found} instead of {true}"

    findings.judge(Check.SAMPLE_PAIRS, np.logical_or.reduce(differs), tell)


def check_supports(members: Members, plan: SamplesPlan, findings: Findings) -> None:
    _check_numbers(members, plan, findings)
    _check_repeats(members, findings)
    queries, samples = members.queries, members.samples
    support = np.delete(np.arange(len(members.sample)), queries)
    sample = members.sample[support]
    query, rows = queries[sample], members.rows
    order = pc.list_flatten(samples["order"]).to_numpy()
    told = np.searchsorted(sample, sample) + order  # where the columns tell of each

    def name(number: int) -> str:
        return f"{members.name(support[number])}: support {members.pair_id(support[number])}"

    cosines = inner_products(rows.images[query], rows.images[support])
    findings.judge(
        Check.BAND, ~plan.in_band(cosines), lambda number: f"{name(number)}: its image cosine is {cosines[number]:.6f}"
    )
    captions = inner_products(rows.captions[query], rows.captions[support])
    for check, column, exact in (
        (Check.DISTANCE, "distances", plan.distances(cosines)),
        (Check.CAPTION_SIMILARITY, "caption_similarities", captions),
    ):
        said, true = pc.list_flatten(samples[column]).to_numpy()[told], exact.astype(np.float32)
        findings.judge(check, said != true, partial(_instead, name, said, true))
    rule = broken_rule(rows.pairs.take(query), rows.pairs.take(support), rows.images[query], rows.images[support])
    own_caption = RULES.index("caption")
    findings.judge(Check.SAME_IMAGE, rule < own_caption, lambda number: f"{name(number)} ({RULES[rule[number]]})")
    if plan.drop_same_caption:
        findings.judge(Check.OWN_CAPTION, rule == own_caption, name)
    ranked = np.lexsort((order, sample))
    turned = _turned(sample[ranked], captions[ranked], rows.place[support[ranked]])
    findings.judge(Check.RANKED, turned, lambda number: name(ranked[number]))


def _instead(name: Callable[[int], str], said: Singles, true: Singles, number: int) -> str:
    return f"{name(number)}: {said[number]} instead of {true[number]}"


def _turned(sample: Integers, captions: Floats, place: Integers) -> Mask:
    """(m,), best first as told: does a support stand before one that is better?"""
    worse = (captions[:-1] < captions[1:]) | ((captions[:-1] == captions[1:]) & (place[:-1] > place[1:]))
    return np.append(worse & (sample[:-1] == sample[1:]), np.zeros(len(sample[:1]), np.bool_))


def _check_numbers(members: Members, plan: SamplesPlan, findings: Findings) -> None:
    found = pc.list_value_length(members.samples["supports"]).to_numpy()
    wrong: Mask = found > plan.supports if plan.on_starved == "short" else found != plan.supports
    findings.judge(
        Check.SAMPLE_SIZES,
        wrong,
        lambda number: f"{members.name(members.queries[number])}: {found[number]} supports of {plan.supports}",
    )


def _check_repeats(members: Members, findings: Findings) -> None:
    order = np.lexsort((members.rows.place, members.sample))
    sample, place = members.sample[order], members.rows.place[order]
    repeated = sample[1:][(sample[1:] == sample[:-1]) & (place[1:] == place[:-1])]
    findings.judge(
        Check.DISTINCT,
        np.isin(np.arange(len(members.samples)), repeated),
        lambda number: members.name(members.queries[number]),
    )
