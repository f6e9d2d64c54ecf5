"""Few-shot evaluation sets of a finished root, as an evaluation reads them."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from pipeline.commits import Whole
from stages.filter import CorpusReader
from stages.interleave.corpora import opened_as_made
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

    @property
    def identity(self) -> str:
        return self._whole.identity

    @cached_property
    def corpora(self) -> list[CorpusReader]:
        """As `corpus` of a support counts them; the last is that of the queries. Raises InputError where one was made
        anew since: a row id may mean another pair."""
        return opened_as_made(self._whole, "examples", self._whole.folder.root)

    def supports(self, shots: int) -> dict[str, list[Support]]:
        """In prompt order, by the pair id of every pair that shows the query's picture; a starved query is not there.

        Raises KeyError for a number of shots that no set has."""
        if shots not in self.shots:
            raise KeyError(shots)
        table = self._whole.tables(f"shots_{shots}", ["references", "supports"])
        return {reference["pair_id"]: row["supports"] for row in table.to_pylist() for reference in row["references"]}
