"""What stands over the table: what was compared, how it is read, and what it is no claim of."""

from collections.abc import Mapping

import polars as pl

from trials.results.recipe import ResultsRecipe
from trials.results.table import Results

READ = """\
CIDEr-D, BLEU-4 and shares are × 100; ± is Student's 95 % over seeds (none for one seed). `none` reads no neighbours and
so has no database; `prefix` and `cross` were trained with neighbours of own, and their database is swapped when they
are asked, without training. No neighbour shows the picture itself or an example's, so with examples (of own) a picture
has other neighbours in own and both than without. All arms of a seed began with one language model and were pretrained
on the same samples; what a way to read costs beside them stands in the columns: operations of pretraining by
model.flops, and of the retrofit that `cross` has before it. `copied` is the share of a caption's words that are its
longest run in common with a neighbour's. The trainings' meters are of held-out pairs of own, in nats a token."""


def heading(recipe: ResultsRecipe, results: Results, pairs: Mapping[str, int]) -> str:
    """pairs: of every corpus, by name."""
    seeds = ", ".join(map(str, recipe.seeds))
    questions = max(results.scores["questions"].to_list())
    sizes = ", ".join(f"{name} {pairs[name]:,} pairs" for name in ("own", "other", "both"))
    lines = [
        "# What retrieval gives",
        recipe.note,
        f"Preset {recipe.training.model.preset}, seeds {seeds}. Databases: {sizes}; test: {questions:,} pictures "
        f"with {pairs['test']:,} references.",
        READ,
        *_partial(results),
        *_seen(results),
    ]
    return "\n\n".join(filter(None, lines))


def _partial(results: Results) -> list[str]:
    """Why a figure is not one of the whole set."""
    noted = results.scores.filter(pl.col("value").is_not_null() & (pl.col("note") != ""))
    return [f"**Not of the whole set:** {note}" for note in noted["note"].unique(maintain_order=True)]


def _seen(results: Results) -> list[str]:
    """How many test pictures stand where they should not."""
    counted = results.scores.filter((pl.col("domain") == "") & pl.col("metric").is_in(["in_trained_on", "in_database"]))
    most = {name: int(value or 0) for name, value in counted.group_by("metric").agg(pl.col("value").max()).iter_rows()}
    if not any(most.values()):
        return ["No test picture stands in own or in a database."]
    return [
        f"**Test pictures seen before:** {most.get('in_trained_on', 0):,} stand in own, which the models learned, and "
        f"up to {most.get('in_database', 0):,} in a database, where they are not retrieved."
    ]
