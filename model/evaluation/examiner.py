"""Prompts of questions: their examples, all pictures as the model sees them, and the neighbours of each.

The image rules hold for every neighbour against all pictures of its prompt: a neighbour of an example may show the very
picture that is asked about, and its caption be the answer.
"""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any

from model.evaluation.evaluation_set import Question
from model.evaluation.examples import Example
from model.evaluation.live_index import NOTHING, Neighbors
from model.evaluation.sight import Seen, Sight
from model.sequence import Chunk
from stages.filter import CorpusReader


@dataclass(frozen=True)
class StoredRow:
    """A picture of a corpus, as LiveIndex asks for it."""

    jpeg: bytes
    sha256: str
    stored_sha256: str
    phash: int

    @classmethod
    def of(cls, corpus: CorpusReader, row: Mapping[str, Any]) -> "StoredRow":
        return cls(corpus.picture(row), row["sha256"], row["stored_sha256"], row["phash"])


@dataclass(frozen=True)
class Asked:
    """A question with its examples, in prompt order."""

    question: Question
    examples: Sequence[Example]


@dataclass(frozen=True)
class Prompted:
    chunks: Sequence[Chunk]  # the last is the question's
    shown: int  # examples that had room
    neighbors: Neighbors  # of the question's picture


@dataclass(frozen=True)
class Examiner:
    """corpus: of the set. Without an index in its sight no picture has neighbours. matches: pair ids that are known to
    show a question's picture, by that picture's first pair id."""

    sight: Sight
    corpus: CorpusReader
    k: int
    matches: Mapping[str, Set[str]] = field(default_factory=dict)

    def prompts(self, asked: Sequence[Asked], new_tokens: int) -> list[Prompted | None]:
        """new_tokens: for as many there has to be room behind a prompt; examples in front are left out until there is.
        None: there is none even without them."""
        rows = [self._pictures(each) for each in asked]
        stored = {place: StoredRow.of(corpus, row) for some in rows for place, (corpus, row) in some.items()}
        seen = dict(zip(stored, self.sight.see([each.jpeg for each in stored.values()]), strict=True))
        return [
            self._prompted(each, {place: (stored[place], seen[place]) for place in some}, new_tokens)
            for each, some in zip(asked, rows, strict=True)
        ]

    def _pictures(self, asked: Asked) -> "dict[Place, tuple[CorpusReader, Mapping[str, Any]]]":
        examples = [(each.corpus, each.row) for each in asked.examples if each.corpus and each.row]
        own = (self.corpus, self.corpus.row(asked.question.row_id))
        return {_place(corpus, row): (corpus, row) for corpus, row in [*examples, own]}

    def _prompted(
        self, asked: Asked, pictures: "Mapping[Place, tuple[StoredRow, Seen]]", new_tokens: int
    ) -> Prompted | None:
        matches = self.matches.get(asked.question.pair_id, frozenset())
        neighbors = dict(zip(pictures, self._neighbors(list(pictures.values()), matches), strict=True))
        chunks = [self._example(each, pictures, neighbors) for each in asked.examples]
        own = self.corpus.identity, asked.question.row_id
        captions = [neighbor.caption for neighbor in neighbors[own].kept]
        chunks.append(Chunk(image=pictures[own][1].image, prompt=asked.question.asked, neighbors=captions, ends=False))
        shown = len(asked.examples)
        while self.sight.answerer.room(chunks) < new_tokens:
            if not shown:
                return None
            chunks, shown = chunks[1:], shown - 1
        return Prompted(chunks, shown, neighbors[own])

    def _neighbors(self, pictures: Sequence[tuple[StoredRow, Seen]], matches: Set[str]) -> list[Neighbors]:
        if self.sight.index is None or self.k == 0:
            return [NOTHING] * len(pictures)
        stored = [each for each, _ in pictures]
        beside = [[other for other in stored if other is not each] for each in stored]
        wanted = self.k + len(matches)
        found = self.sight.index.neighbors(stored, [seen.key for _, seen in pictures], wanted, beside)
        return [_without(each, matches, self.k) for each in found]

    def _example(
        self,
        example: Example,
        pictures: "Mapping[Place, tuple[StoredRow, Seen]]",
        neighbors: "Mapping[Place, Neighbors]",
    ) -> Chunk:
        text = answered(example.asked, example.answer)
        if example.corpus is None or example.row is None:
            return Chunk(prompt=example.asked, text=text)
        place = _place(example.corpus, example.row)
        captions = [neighbor.caption for neighbor in neighbors[place].kept]
        return Chunk(image=pictures[place][1].image, prompt=example.asked, text=text, neighbors=captions)


def _without(found: Neighbors, matches: Set[str], k: int) -> Neighbors:
    kept = [neighbor for neighbor in found.kept if neighbor.pair["pair_id"] not in matches]
    return Neighbors(tuple(kept[:k]), found.removed + len(found.kept) - len(kept))


Place = tuple[str, int]
"""A corpus' identity and a row id."""


def _place(corpus: CorpusReader, row: Mapping[str, Any]) -> Place:
    return corpus.identity, int(row["row_id"])


def answered(asked: str, answer: str) -> str:
    """A caption stands right behind its picture, an answer is a word apart from its question."""
    return f" {answer}" if asked else answer
