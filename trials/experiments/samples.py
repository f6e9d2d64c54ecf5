"""What a stage learns from, and what a model is asked: the world's pairs as samples."""

from collections.abc import Mapping, Sequence
from random import Random

from demo.named import Group, NamedPair
from model.sequence import Chunk
from model.training.samples import Sample
from trials.experiments.neighbors import allowed, by_truth
from trials.experiments.setting import Setting

DOCUMENT = 5  # related captions, at most
SUPPORTS = 4

Neighbors = Mapping[str, Sequence[NamedPair]]
"""By the id of the pair that they are of."""


def documents(setting: Setting) -> list[Sample]:
    """One a training pair: its caption after up to four other ones of its group. A model that has learned from single
    captions alone does not read its context."""
    made = []
    for pair in setting.world.training:
        length = Random(f"document {pair.id}").randint(1, DOCUMENT)
        others = related(pair, setting.training_groups[pair.group.number], length - 1)
        made.append(Sample(pair.id, tuple(Chunk(text=each.caption) for each in [*others, pair])))
    return made


def texts(setting: Setting, neighbors: Neighbors) -> list[Sample]:
    """Captions with their neighbours', without pictures: for retrofit."""
    return [
        Sample(pair.id, (Chunk(text=pair.caption, neighbors=captions_of(neighbors[pair.id])),))
        for pair in setting.world.training
    ]


def pairs(setting: Setting, neighbors: Neighbors) -> list[Sample]:
    """neighbors: may be empty, of a model that reads none."""
    return [Sample(pair.id, (_chunk(setting, pair, neighbors),)) for pair in setting.world.training]


def five_pairs(setting: Setting) -> list[Sample]:
    """Four pairs of the same group with other captions, then the pair itself; all five are learned."""
    made = []
    for pair in setting.world.training:
        supports = related(pair, setting.training_groups[pair.group.number], SUPPORTS)
        made.append(Sample(pair.id, tuple(_chunk(setting, each, {}) for each in [*supports, pair])))
    return made


def questions(
    setting: Setting,
    neighbors: Sequence[Sequence[NamedPair]] | None = None,
    names: Mapping[Group, str] | None = None,
    *,
    supports: int = 0,
) -> list[Sample]:
    """The pairs that are to be captioned, in the world's order; of a sample the last chunk alone is learned, so that
    its loss is the answer's.

    names: other names, that groups have got in all captions.
    """
    names = names or {}
    asked = []
    for number, pair in enumerate(setting.world.asked):
        told = [told_by(other, names) for other in neighbors[number]] if neighbors else []
        group = setting.shown_groups[pair.group.number]
        shots = [
            Chunk(image=setting.patches[each.id], text=told_by(each, names), learned=False)
            for each in related(pair, group, supports)
        ]
        question = Chunk(image=setting.patches[pair.id], text=told_by(pair, names), neighbors=told)
        asked.append(Sample(pair.id, (*shots, question)))
    return asked


def related(pair: NamedPair, group: Sequence[NamedPair], number: int) -> list[NamedPair]:
    """So many pairs of the group with other captions than its own and each other's."""
    return allowed(pair, by_truth(pair, group), "on", number) if number else []


def told_by(pair: NamedPair, names: Mapping[Group, str]) -> str:
    return pair.called(names.get(pair.group, pair.group.name))


def captions_of(pairs: Sequence[NamedPair]) -> list[str]:
    return [pair.caption for pair in pairs]


def _chunk(setting: Setting, pair: NamedPair, neighbors: Neighbors) -> Chunk:
    told = captions_of(neighbors.get(pair.id, ()))
    return Chunk(image=setting.patches[pair.id], text=pair.caption, neighbors=told)
