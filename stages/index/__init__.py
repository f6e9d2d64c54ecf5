"""An IVF index over the vectors of a corpus: trained once, filled shard by shard, served memory-mapped, its recall
measured.

Reads   corpus: img_emb, text_emb and metadata
Writes  index_train: the trained, empty index · index_add: lists, codes and ids · index: the files that are searched ·
        index_report: recall by probes and depth, and its plot · index_gate: index.json, if the recall is enough ·
        index_alive: what was deleted, in a root that updates another one's index
"""

from typing import Any

from pipeline.stage import Stage
from stages.index.add import IndexAdd
from stages.index.additions import model_conflicts, model_of
from stages.index.database import Database
from stages.index.exact import best_first, exact_search, exact_similarity
from stages.index.factory import Choice, choose
from stages.index.gate import IndexGate, refuse_below_floor
from stages.index.index_file import IndexFile
from stages.index.query_encoder import QueryEncoder
from stages.index.recall import cost_us
from stages.index.recipe import IndexRecipe, IndexSettings
from stages.index.report import IndexReport
from stages.index.retriever import Retriever
from stages.index.serve import IndexServe
from stages.index.size import IndexBytes, index_bytes
from stages.index.train import IndexTrain
from stages.index.update import UpdateRecipe, update_stages
from stages.index.vectors import Key, Vectors, by_shard

__all__ = [
    "Choice",
    "Database",
    "IndexBytes",
    "IndexFile",
    "IndexRecipe",
    "IndexSettings",
    "Key",
    "QueryEncoder",
    "Retriever",
    "UpdateRecipe",
    "Vectors",
    "best_first",
    "by_shard",
    "choose",
    "cost_us",
    "exact_search",
    "exact_similarity",
    "index_bytes",
    "index_stages",
    "model_conflicts",
    "model_of",
    "refuse_below_floor",
    "update_stages",
]


def index_stages(recipe: IndexRecipe) -> list[Stage[Any]]:
    """In the order in which they run; the first needs the stage `corpus`."""
    return [IndexTrain(recipe), IndexAdd(recipe), IndexServe(recipe), IndexReport(recipe), IndexGate(recipe)]
