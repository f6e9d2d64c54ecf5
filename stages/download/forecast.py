"""Try a few urls before a run starts: what share of a list will give a picture, and whether anything is reached."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.errors import InputError
from pipeline.intervals import interval
from stages.download.engines import engine
from stages.download.health import leading
from stages.download.images import Stored
from stages.download.opt_outs import OptOuts
from stages.download.recipe import DownloadRecipe
from stages.download.request import FetchLimits


@dataclass(frozen=True)
class Forecast:
    urls: int
    good: int
    reasons: Counter[str]  # of the others

    def __str__(self) -> str:
        low, high = interval(self.good / self.urls, self.urls)
        told = f" ({leading(self.reasons)})" if self.reasons else ""
        return (
            f"Of {self.urls} urls from the heads of the lists {self.good} gave a picture{told}: "
            f"expect {low:.0%} to {high:.0%}"
        )


def forecast(urls: Sequence[str], recipe: DownloadRecipe) -> Forecast:
    """Raises InputError where so few give a picture that the run would stop (download.min_success)."""
    limits = FetchLimits(**recipe.of_a_request(), opt_outs=OptOuts.load(recipe.opt_out))
    fetch, make = engine(recipe, limits)
    reasons: Counter[str] = Counter()
    for fetched in fetch([{"url": url, "local_path": None} for url in urls]):
        made = fetched if fetched.body is None else make(fetched.body)
        if not isinstance(made, Stored) and made.reason:
            reasons[made.reason.value] += 1
    found = Forecast(len(urls), len(urls) - reasons.total(), reasons)
    _, high = interval(found.good / found.urls, found.urls)
    if high < recipe.min_success:
        raise InputError(
            f"{found}, and download.min_success asks for {recipe.min_success:.0%}. Nothing was started: see to the "
            "network and the resolver of this machine; download.check_urls=0 leaves this check out"
        )
    return found
