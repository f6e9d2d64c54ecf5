"""A few urls of a recipe's lists, to try before anything starts."""

from itertools import islice

from stages.ingest.checks import fault_of, stripped
from stages.ingest.count import Count
from stages.ingest.presets import PRESETS
from stages.ingest.recipe import IngestRecipe
from stages.ingest.records import Fault, Raw

HEAD_ROWS = 2000  # of a list, of which its urls are taken evenly


def sample_urls(recipe: IngestRecipe, number: int) -> list[str]:
    """About so many, from the heads of all lists alike; none where the pictures lie on disk, or are those of a second
    pass, of which little is to be expected."""
    if number == 0:
        return []
    lists = Count(recipe).lists
    chosen = lists[:: max(1, len(lists) // number)]
    found: list[str] = []
    for source, file in chosen:
        bounds = source.prefilter.given()
        head = islice(PRESETS[source.preset].reader(file).rows(file), HEAD_ROWS)
        good = [raw for raw in head if not isinstance(raw[1], Fault) and not fault_of(raw[1], bounds)]
        urls = [stripped(raw.url) for _, raw in good if isinstance(raw, Raw) and raw.url is not None]
        per_list = -(-number // len(chosen))
        found += urls[:: max(1, len(urls) // per_list)][:per_list]
    return found[:number]
