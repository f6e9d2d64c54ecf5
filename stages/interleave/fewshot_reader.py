"""Few-shot evaluation sets of a finished root, as an evaluation reads them."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from pipeline.commits import Whole
from pipeline.errors import InputError
from stages.filter import CorpusReader
from stages.interleave.fewshot import Fewshot

Support = Mapping[str, Any]
"""An item of FEWSHOT.supports."""


class FewshotReader:
    """Raises InputError where the root's sets are not whole."""

    def __init__(self, root: str) -> None:
        self._whole = Whole.open(root, Fewshot.name)
        told = self._whole.plan().resolved
        self.selection: str = told["selection"]
        self.leaks: bool = told["leaks"]  # the query's own caption has chosen its supports
        self.shots: Sequence[int] = told["shots"]
        self.queries: str = told["queries"]  # the root of the test split
        self._corpora: Sequence[str] = told["corpora"]

    @property
    def identity(self) -> str:
        return self._whole.identity

    @cached_property
    def corpora(self) -> list[CorpusReader]:
        """As `corpus` of a support counts them; the last is that of the queries. Raises InputError where one was made
        anew since: a row id may mean another pair."""
        return [self._corpus(number, root) for number, root in enumerate(self._corpora)]

    def supports(self, shots: int) -> dict[str, list[Support]]:
        """In prompt order, by the pair id of every pair that shows the query's picture; a starved query is not there.

        Raises KeyError for a number of shots that no set has."""
        if shots not in self.shots:
            raise KeyError(shots)
        table = self._whole.tables(f"shots_{shots}", ["references", "supports"])
        return {reference["pair_id"]: row["supports"] for row in table.to_pylist() for reference in row["references"]}

    def _corpus(self, number: int, root: str) -> CorpusReader:
        corpus, made_of = CorpusReader(root), self._whole.manifest.inputs[f"corpus {number}"]
        if corpus.identity != made_of:
            raise InputError(
                f"{root}/corpus is not the one that the examples in {self._whole.folder.root} were made of: its "
                f"identity was {made_of[:12]} and is {corpus.identity[:12]}. Make the examples anew."
            )
        return corpus
