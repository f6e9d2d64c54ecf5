"""All of it, in order: runs, trainings, answers, and the table."""

from shutil import copyfile

from demo.worlds import CAPTIONS, DrawWorld
from model.evaluation.evaluate import evaluation_stages
from model.evaluation.recipe import EvaluationRecipe
from pipeline.commits import Whole
from trials.results.recipe import DATABASES, ResultsRecipe
from trials.results.roots import Roots
from trials.results.stage import CSV, PLOT, REPORT, TABLE, ResultsTable
from trials.results.training import Seed


def results(recipe: ResultsRecipe) -> str:
    """Make what is not there yet → the report, which is also written below the root with its plot and figures.

    Raises as the stages do, and ShardFailed where one does not end whole."""
    roots = Roots(recipe)
    roots.make()
    seeds = [Seed(recipe, seed) for seed in recipe.seeds]
    for seed in seeds:
        roots.finish(seed.name, seed.stages())
        models = {str(mode): seed.checkpoint(mode) for mode in recipe.modes}
        databases = {name: recipe.place(name) for name in DATABASES}
        roots.finish(seed.name, evaluation_stages(evaluation(recipe), models, databases))
    trainings = [stage.name for stage in seeds[0].stages()]
    table = f"table-{'-'.join(map(str, recipe.seeds))}"  # other seeds make another table
    roots.finish(table, [ResultsTable(recipe, tuple(trainings))])
    return _shown(recipe, table)


def evaluation(recipe: ResultsRecipe) -> EvaluationRecipe:
    """What every model is asked, with every database; a cell is one shard."""
    domains = recipe.domains
    if recipe.world:
        domains = Whole.open(recipe.place("world"), DrawWorld.name).read("test").path(CAPTIONS)
    return EvaluationRecipe(
        pictures=recipe.place("test"),
        domains=domains,
        shots=recipe.shots,
        examples=recipe.place("examples") if any(recipe.shots) else None,
        text_examples=recipe.place("own"),
        trained_on=(recipe.place("own"),),
        **recipe.asked.model_dump(),
    )


def _shown(recipe: ResultsRecipe, table: str) -> str:
    made = Whole.open(recipe.place(table), ResultsTable.name)
    (shard,) = made.shards
    found = made.read(shard)
    for name in (REPORT, PLOT, TABLE, CSV):
        copyfile(found.path(name), recipe.place(name))
    return found.path(REPORT).read_text(encoding="utf-8")
