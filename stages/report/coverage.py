"""What the figures of a report leave out, so that nobody has to guess."""

from collections.abc import Iterator

from stages.report.root import STAGES, RunRoot

OPTIONAL = ("encoder", "filter_duplicates", "index_alive", "neighbor_keys", "neighbors")
BEFORE_THE_FILTER = ("ingest_count", "ingest_rows", "download", "embed")

BEFORE_AN_UPDATE = (*BEFORE_THE_FILTER, "filter_judge", "corpus", "index_train", "index_add", "index")

ALWAYS = (
    "Seconds are those that workers spent on shards that were committed, added up. Waiting, shards that were begun and "
    "lost, and the time from start to end are not in them.",
    "The pairs shown are a choice by a hash of their pair_id: enough to see what a reason means, not to estimate how "
    "often it is wrong.",
    "Recall compares the index with exact search in the same vectors. Whether a neighbour is of use to a model is "
    "another question, and so is how fast a search is.",
    "A CLIP score can be compared with others of the same model only.",
)


def not_covered(run: RunRoot) -> Iterator[str]:
    others = run.crawls != [run]
    if others:
        roots = ", ".join(crawl.root for crawl in run.crawls)
        yield f"How the pairs of {roots} were listed and fetched: each of these runs has a report of its own."
    updated = run.recipe.get("update")
    if updated:
        roots = ", ".join([updated["index"], *updated.get("add", ())])
        yield f"How the pairs of {roots} were collected, and the index trained: these runs have reports of their own."
    left_out = (*OPTIONAL, *(BEFORE_THE_FILTER if others else ()), *(BEFORE_AN_UPDATE if updated else ()))
    missing = [stage for stage in STAGES if stage not in run.stages and stage not in left_out]
    if missing:
        yield f"Stages of which nothing is committed yet: {', '.join(missing)}."
    for name, stage in run.stages.items():
        done, planned = len(stage.records), len(stage.plan.shards)
        if done < planned:
            yield f"{name} is not whole: {done:,} of {planned:,} shards are committed, and only these are counted."
    yield from ALWAYS
