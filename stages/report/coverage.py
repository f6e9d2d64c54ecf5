"""What the figures of a report leave out, so that nobody has to guess."""

from collections.abc import Iterator, Sequence

from stages.report.root import BEFORE_THE_FILTER, NEIGHBORS, OF_MODELS, SAMPLES, STAGES, RunRoot

OPTIONAL = (
    "encoder",
    "ingest_keys",
    "ingest_duplicates",
    "evaluation_sets",
    "filter_duplicates",
    "index_alive",
    *NEIGHBORS,
    *SAMPLES,
    *OF_MODELS,
)

BEFORE_AN_UPDATE = (*BEFORE_THE_FILTER, "filter_judge", "corpus", "index_train", "index_add", "index")
BEFORE_SAMPLES = (*BEFORE_AN_UPDATE, "index_report", "index_gate")

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
    left_out = set(OPTIONAL)
    for told, stages in _made_elsewhere(run):
        yield told
        left_out |= set(stages)
    missing = [stage for stage in STAGES if stage not in run.stages and stage not in left_out]
    if missing:
        yield f"Stages of which nothing is committed yet: {', '.join(missing)}."
    for name, stage in run.stages.items():
        done, planned = len(stage.records), len(stage.plan.shards)
        if done < planned:
            yield f"{name} is not whole: {done:,} of {planned:,} shards are committed, and only these are counted."
    yield from ALWAYS


def _made_elsewhere(run: RunRoot) -> Iterator[tuple[str, Sequence[str]]]:
    """What is told of it, and its stages."""
    others = [crawl.root for crawl in run.crawls if crawl != run]
    if others:
        roots = ", ".join(others)
        told = f"How the pairs of {roots} were listed and fetched: each of these runs has a report of its own."
        yield told, BEFORE_THE_FILTER
    updated = run.recipe.get("update")
    if updated:
        roots = ", ".join([updated["index"], *updated.get("add", ())])
        told = f"How the pairs of {roots} were collected, and the index trained: these runs have reports of their own."
        yield told, BEFORE_AN_UPDATE
    if "interleave_keys" in run.stages and "corpus" not in run.stages:
        told = "How the pairs were collected: each run whose corpus was mined has a report of its own."
        yield told, BEFORE_SAMPLES
