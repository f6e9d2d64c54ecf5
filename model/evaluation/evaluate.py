"""The stages of an evaluation, for the models and databases that a recipe names."""

from collections.abc import Mapping
from typing import Any

from model.evaluation.answers import EvaluationAnswers
from model.evaluation.contestants import Contestant
from model.evaluation.examples import examples_of
from model.evaluation.matches import EvaluationMatches
from model.evaluation.page import EvaluationPage
from model.evaluation.recipe import EvaluationRecipe
from model.evaluation.scores import EvaluationScores
from model.evaluation.tasks import task_of
from pipeline.errors import InputError
from pipeline.stage import Stage
from stages.filter import CorpusReader
from stages.index import Database


def evaluation_stages(
    recipe: EvaluationRecipe, models: Mapping[str, str], databases: Mapping[str, str | None]
) -> list[Stage[Any]]:
    """In the order in which they run. models: checkpoints by name; databases: roots of runs whose index is finished by
    name, None for none.

    Raises InputError or RecipeError where a checkpoint, an index or examples are not there or do not go together, and
    where a picture is to have more neighbours than there are pairs.
    """
    contestants = {name: Contestant.of(checkpoint) for name, checkpoint in models.items()}
    answers = EvaluationAnswers(recipe, contestants, databases)
    asked = {cell.database: cell.k for cell in answers.cells}
    corpora = {name: _corpora(root, asked[name]) for name, root in databases.items() if root and name in asked}
    task_of(recipe).questions(CorpusReader(recipe.pictures))
    for shots in recipe.shots:
        examples_of(recipe, shots, task_of(recipe).told)
    looked_through = dict.fromkeys([*recipe.trained_on, *(root for some in corpora.values() for root in some)])
    matches = EvaluationMatches(recipe.pictures, tuple(looked_through))
    return [matches, answers, EvaluationScores(recipe, answers, corpora), EvaluationPage(recipe)]


def _corpora(root: str, k: int) -> list[str]:
    """That can be retrieved from."""
    database = Database.of_index(root)
    if k > database.size:
        raise InputError(
            f"{root} holds {database.size:,} pairs, and {k} neighbours a picture are asked for: set "
            "evaluation.neighbors to no more, or name another database"
        )
    return [part.found(database.root) for part in database.corpora]
