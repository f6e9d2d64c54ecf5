"""What was run: the few settings that a reader asks for first, and the whole recipe."""

from collections.abc import Iterator, Mapping

import yaml

from pipeline.recipe import Json
from stages.report.markup import Markup, element, joined
from stages.report.root import RunRoot
from stages.report.scores import thresholds


def summary(run: RunRoot) -> Markup:
    lines = [joined(element("dt", name), element("dd", value)) for name, value in _lines(run)]
    recipe = yaml.safe_dump(dict(run.recipe), sort_keys=False, allow_unicode=True) if run.recipe else ""
    whole = element("details", element("summary", "The whole recipe"), element("pre", recipe)) if recipe else ""
    return joined(element("dl", *lines), whole)


def _lines(run: RunRoot) -> Iterator[tuple[str, str]]:
    recipe = run.recipe
    if recipe.get("note"):
        yield "Note", recipe["note"]
    listed = (recipe.get("ingest") or {}).get("sources", [])
    if listed:
        yield "Sources", ", ".join(map(_source, listed))
    if recipe.get("corpora"):
        yield "Pairs of", ", ".join(recipe["corpora"])
    elif run.crawls != [run]:
        yield "Pairs of", ", ".join(crawl.root for crawl in run.crawls)
    if "embed" in recipe and run in run.crawls:
        embed = recipe["embed"]
        own = embed["model"] == "encoder"
        yield "Scored by", "the encoder that this run trained" if own else f"{embed['model']}, {embed['pretrained']}"
    limits = thresholds(run)
    if limits:
        yield "Least CLIP score", ", ".join(f"{s}: {'any' if m is None else m}" for s, m in limits.items())
    if "index_train" in run.stages:
        yield "Index", run.stages["index_train"].plan.resolved["factory"]
    for name, stage in run.stages.items():
        if stage.folder.root != run.root:
            yield f"{name} taken from", stage.folder.root


def _source(source: Mapping[str, Json]) -> str:
    if source["preset"] == "rejects":
        return f"what {source['root']} rejected for {', '.join(source['reasons'])}"
    return f"{source['name']} (preset {source['preset']})"
