"""What lists a run's pairs come from: a pair_id means a row of them."""

from collections import defaultdict

from pipeline.commits import Whole, resolve_folder
from pipeline.recipe import Json
from stages.ingest.count import Count, read_counts


def source_lists(root: str) -> dict[str, Json]:
    """Source → checksums and rows of its lists in order; of a second pass, those of the first one. Empty where the root
    does not say."""
    if resolve_folder(root, Count.name).manifest():
        return _counted(Whole.open(root, Count.name))
    plan = resolve_folder(root, "ingest_rows").plan()
    found: dict[str, Json] = plan.resolved.get("lists", {}) if plan else {}
    return found


def _counted(counted: Whole) -> dict[str, Json]:
    found: dict[str, Json] = defaultdict(list)
    for count in read_counts(counted):
        found[count["source"]].append([[part["sha256"] for part in count["files"]], count["rows"]])
    return dict(found)
