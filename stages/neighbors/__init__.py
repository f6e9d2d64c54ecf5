"""The nearest pairs of every training pair, less those that would give the answer away (Re-ViLM §3.3).

Reads   a corpus, and the databases that are looked into: indexes, or corpora without one
Writes  neighbor_keys: what the leakage rules compare · neighbors: a table beside each shard of the corpus
"""

from typing import Any

from pipeline.stage import Stage
from stages.neighbors.databases import Databases, check
from stages.neighbors.keys import NONE, RULES, Keys, NeighborKeys, PairKeys, consecutive
from stages.neighbors.leakage import KEPT, NOTHING, first_broken
from stages.neighbors.neighbors import Neighbors
from stages.neighbors.reader import NeighborReader
from stages.neighbors.recipe import Device, NeighborsRecipe

__all__ = [
    "KEPT",
    "NONE",
    "NOTHING",
    "RULES",
    "Device",
    "Keys",
    "NeighborReader",
    "NeighborsRecipe",
    "PairKeys",
    "consecutive",
    "first_broken",
    "neighbor_stages",
]


def neighbor_stages(recipe: NeighborsRecipe, corpus: str) -> list[Stage[Any]]:
    """In the order in which they run. corpus: the root whose pairs are the queries.

    Raises InputError or RecipeError where a database is not finished, was made anew since, cannot be compared with the
    corpus, or holds too few rows.
    """
    check(recipe, Databases.open(recipe, corpus))
    databases = Databases.open(recipe, corpus)  # anew: those that were checked hold manifests, and travel to workers
    return [NeighborKeys(tuple(databases.corpora)), Neighbors(recipe, databases)]
