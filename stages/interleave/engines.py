"""Two ways to the supports, with one result.

sweep      on a processor core: bounds exclude nearly all pairs, and what is left is looked at closer (sweep.py)
products   all products of both sides, on a GPU or on a processor (products.py)

`auto` takes products on a GPU. On a processor it takes what the probe found cheapest, by how many pairs came to each
step of the sweep (seen.py): led by images where few of them are in the band, by captions where many are.
Imports torch and numba.
"""

from stages.interleave.axes import Axes
from stages.interleave.pairs import Pairs
from stages.interleave.products import Products
from stages.interleave.recipe import InterleaveRecipe
from stages.interleave.seen import EngineName
from stages.interleave.supports import Engine, Rule
from stages.interleave.sweep import Lead, Sweep

SAMPLED = 20_000  # pairs that axes are computed from


def engine_for(pairs: Pairs, recipe: InterleaveRecipe, cheapest: EngineName) -> Engine:
    """cheapest: on a processor, by the probe."""
    on_gpu = recipe.device == "cuda"
    if recipe.engine == "products" or (recipe.engine == "auto" and (on_gpu or cheapest == "products")):
        return Products(pairs, rule_of(recipe), recipe.device)
    return open_sweep(pairs, recipe, "caption" if cheapest == "caption" else "image")


def open_sweep(pairs: Pairs, recipe: InterleaveRecipe, lead: Lead) -> Sweep:
    images, captions = map(Axes.of, pairs.sample(SAMPLED, seed=0))
    return Sweep(pairs, rule_of(recipe), images, captions, lead)


def rule_of(recipe: InterleaveRecipe) -> Rule:
    return Rule(recipe.band, recipe.supports, own_caption=not recipe.drop_same_caption)
