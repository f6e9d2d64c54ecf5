"""How questions are answered: by text of the model's own, or by the given answer that it holds most probable."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from model.evaluation.answerer import Decoding
from model.evaluation.choices import ChoicesRecipe, chosen, permuted
from model.evaluation.evaluation_set import Question
from model.evaluation.examiner import Asked, Examiner, Prompted, answered
from model.evaluation.recipe import EvaluationRecipe


@dataclass(frozen=True)
class Reply:
    question: Question
    answer: str
    new_tokens: int  # that were allowed; 0: it is a choice
    prompted: Prompted


def replies(examiner: Examiner, asked: Sequence[Asked], recipe: EvaluationRecipe) -> Iterator[Reply]:
    """Of every question one for every number of new tokens, or one choice; none where no prompt has room."""
    if recipe.choices is None:
        yield from _spoken(examiner, asked, recipe)
    else:
        for each in asked:
            yield from _ranked(examiner, each, recipe.choices)


def _spoken(examiner: Examiner, asked: Sequence[Asked], recipe: EvaluationRecipe) -> Iterator[Reply]:
    made = zip(asked, examiner.prompts(asked, recipe.new_tokens[-1]), strict=True)
    prompted = [(each.question, prompt) for each, prompt in made if prompt is not None]
    for new_tokens in recipe.new_tokens if prompted else ():
        decoding = Decoding(
            beams=recipe.beams, length_penalty=recipe.length_penalty, max_new_tokens=new_tokens, cut=recipe.cut
        )
        said = examiner.sight.answerer.say([prompt.chunks for _, prompt in prompted], decoding)
        for (question, prompt), answer in zip(prompted, said, strict=True):
            yield Reply(question, answer, new_tokens, prompt)


def _ranked(examiner: Examiner, asked: Asked, recipe: ChoicesRecipe) -> Iterator[Reply]:
    """The examples in several orders: their log-likelihoods are averaged (Flamingo, closed-ended tasks)."""
    question, answerer = asked.question, examiner.sight.answerer
    choices = [answered(question.asked, choice) for choice in question.choices]
    tokens = [answerer.tokens(choice) for choice in choices]
    orders = permuted(asked.examples, question.id, recipe.permutations, recipe.seed)
    made = examiner.prompts([Asked(question, order) for order in orders], max(tokens))
    prompts = [prompt for prompt in made if prompt is not None]
    if len(prompts) == len(orders):
        nats = answerer.log_likelihood([prompt.chunks for prompt in prompts], [choices] * len(prompts))
        best = chosen([each.tolist() for each in nats], tokens if recipe.per_token else None)
        yield Reply(question, question.choices[best], 0, min(prompts, key=lambda prompt: prompt.shown))
