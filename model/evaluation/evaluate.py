"""The stages of an evaluation, for the models and databases that a recipe names."""

from collections.abc import Mapping, Sequence
from typing import Any

from model.evaluation.answers import EvaluationAnswers
from model.evaluation.contestants import Cell, Contestant
from model.evaluation.examples import FewShot, examples_of
from model.evaluation.matches import EvaluationMatches
from model.evaluation.page import EvaluationPage
from model.evaluation.recipe import EvaluationRecipe
from model.evaluation.scores import EvaluationScores
from model.evaluation.tasks import Vqa, task_of
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
    asked = {name: [cell for cell in answers.cells if cell.database == name] for name in databases}
    corpora = {name: _corpora(root, contestants, asked[name], recipe) for name, root in databases.items() if root}
    task = task_of(recipe)
    task.questions(CorpusReader(recipe.pictures))
    for shots in recipe.shots:
        examples = examples_of(recipe, shots, task.told)
        if isinstance(task, Vqa) and isinstance(examples, FewShot):
            task.check_examples(examples.rows())
    drawn_from = [recipe.text_examples] if recipe.text_examples and not recipe.shots[0] else []
    retrieved_from = [root for some in corpora.values() for root in some]
    looked_through = dict.fromkeys([*recipe.trained_on, *retrieved_from, *drawn_from])
    matches = EvaluationMatches(recipe.pictures, tuple(looked_through))
    return [matches, answers, EvaluationScores(recipe, answers, corpora), EvaluationPage(recipe)]


def _corpora(root: str, models: Mapping[str, Contestant], cells: Sequence[Cell], recipe: EvaluationRecipe) -> list[str]:
    """That can be retrieved from, where a cell asks for it."""
    from model.evaluation.fitting import neighbors_shown

    database = Database.of_index(root)
    for cell in cells:
        neighbors_shown(models[cell.model].checkpoint, root, cell.k, other_encoder=recipe.other_encoder)
    return [part.found(database.root) for part in database.corpora] if cells else []
