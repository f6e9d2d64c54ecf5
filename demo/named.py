"""The world `named`: what a picture shows is not enough to caption it, because things bear names that were drawn.

Pictures of one group share an identity that can be seen, what they show (object and texture) and where. Its name is
drawn at random, so that only the captions of the group's other pictures tell it. Number and colour vary freely within
a group: the picture tells them, and another picture's caption does not.

    caption   name, number and colour, in one of PHRASINGS
    told      by its neighbours, by the picture, by the picture
"""

from dataclasses import dataclass
from functools import cached_property
from itertools import product
from random import Random

from demo.scenes import COLOURS, COUNTS, OBJECTS, PLACES, TEXTURES, Scene

NAMES = tuple("".join(parts) for parts in product(("za", "ve", "ri", "mo", "lu", "ka", "pe", "di"), "bfgmnpvx"))
NUMBERS = ("one", "two", "three", "four")
PHRASINGS = (
    "a picture of {number} {colour} {name}",
    "we saw {number} {name} in {colour}",
    "the {colour} {name}, {number} in all",
    "here are {number} {name}, all {colour}",
    "some {name}: {number} and {colour}",
    "of {colour} {name} there are {number}",
    "look at the {name}, {colour}, {number} of them",
    "in {colour} the {name} are {number}",
)
"""None begins with a word of the closed sets: each of these is then one token, with the space before it."""


@dataclass(frozen=True)
class Group:
    """Pictures of one identity."""

    number: int
    object: str
    texture: str
    place: str
    name: str  # of NAMES


@dataclass(frozen=True)
class NamedPair:
    id: str
    group: Group
    scene: Scene
    phrasing: str  # of PHRASINGS

    @cached_property
    def caption(self) -> str:
        return self.called(self.group.name)

    @property
    def number(self) -> str:
        return NUMBERS[self.scene.count - 1]

    def called(self, name: str) -> str:
        """Its caption, had the group another name."""
        return self.phrasing.format(number=self.number, colour=self.scene.colour, name=name)


@dataclass(frozen=True)
class NamedWorld:
    """training    pairs of the training groups
    shown       pairs of the test groups whose captions the database holds
    asked       pairs of the test groups that are to be captioned; their captions stand nowhere else in the world
    """

    training: tuple[NamedPair, ...]
    shown: tuple[NamedPair, ...]
    asked: tuple[NamedPair, ...]


def make_world(
    seed: int, *, training_groups: int = 256, test_groups: int = 64, captions: int = 14, views: int = 3, asked: int = 8
) -> NamedWorld:
    """captions: different ones of a group; views: pictures under each of them, as reposts on the web have;
    asked: further pictures of a test group, with a view each.

    Raises ValueError for more groups than there are identities.
    """
    identities = list(product(OBJECTS, TEXTURES, PLACES))
    if training_groups + test_groups > len(identities):
        raise ValueError(f"{training_groups} + {test_groups} groups; there are {len(identities)} identities")
    rng = Random(f"named {seed}")
    rng.shuffle(identities)
    # Training groups have all names in equal parts: a test group's is a word that was learned.
    deck = [NAMES[number % len(NAMES)] for number in range(training_groups)]
    names = [*rng.sample(deck, training_groups), *rng.choices(NAMES, k=test_groups)]
    groups = [Group(number, *identities[number], name) for number, name in enumerate(names)]
    test = groups[training_groups:]
    to_ask = [pair for group in test for pair in _pairs(group, asked, 1, set(), rng, "asked")]
    taken = {pair.caption for pair in to_ask}
    known = [
        [pair for group in some for pair in _pairs(group, captions, views, taken, rng, "pair")]
        for some in (groups[:training_groups], test)
    ]
    return NamedWorld(tuple(known[0]), tuple(known[1]), tuple(to_ask))


def renamed(pairs: tuple[NamedPair, ...], seed: int) -> dict[Group, str]:
    """Another name for every group of the pairs."""
    rng = Random(f"renamed {seed}")
    groups = dict.fromkeys(pair.group for pair in pairs)
    return {group: rng.choice([name for name in NAMES if name != group.name]) for group in groups}


def _pairs(group: Group, captions: int, views: int, taken: set[str], rng: Random, kind: str) -> list[NamedPair]:
    """captions × views pairs; no caption is among `taken`."""
    told: dict[str, tuple[str, int, str]] = {}  # caption → colour, count, phrasing
    while len(told) < captions:
        colour, count, phrasing = rng.choice(COLOURS), rng.choice(COUNTS), rng.choice(PHRASINGS)
        text = phrasing.format(number=NUMBERS[count - 1], colour=colour, name=group.name)
        if text not in taken:
            told[text] = (colour, count, phrasing)
    return [
        NamedPair(
            id=f"{kind}-{group.number:03}-{number:02}-{view}",
            group=group,
            scene=Scene(group.object, colour, count, group.place, group.texture, rng.getrandbits(48)),
            phrasing=phrasing,
        )
        for number, (colour, count, phrasing) in enumerate(told.values())
        for view in range(views)
    ]
