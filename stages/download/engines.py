"""Who fetches, and who makes the stored form of what was fetched."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from stages.download.fetch import Fetched
from stages.download.images import ImageRule, Refused, Stored, store
from stages.download.native import bodies
from stages.download.recipe import DownloadRecipe
from stages.download.request import FetchLimits

Fetch = Callable[[Sequence[Mapping[str, Any]]], Iterator[Fetched]]
Make = Callable[[bytes], Stored | Refused]


def engine(recipe: DownloadRecipe, limits: FetchLimits) -> tuple[Fetch, Make]:
    """What gives one result for each row (schema URLS), and what makes the stored form of a picture."""
    if recipe.trusted:
        from stages.download import reference

        return partial(reference.bodies, recipe=recipe), maker(recipe)
    return partial(bodies, limits=limits), maker(recipe)


def maker(recipe: DownloadRecipe) -> Make:
    rule = ImageRule(recipe.size_px, recipe.jpeg_quality, recipe.max_pixels, recipe.quality)
    if recipe.engine == "native":
        return partial(store, rule=rule)
    from stages.download.reference import Maker

    theirs = Maker(rule)
    return theirs.make if recipe.trusted else theirs.make_checked
