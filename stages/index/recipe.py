"""The recipe's `index` section: which index to build, and what recall it has to reach."""

from typing import Self

from pydantic import Field, model_validator

from pipeline.recipe import Section
from stages.index.vectors import Direction, Key


class IndexSettings(Section):
    """How an index is filled, measured and served, which does not depend on how it was trained."""

    seed: int = Field(0, ge=0)  # of the draw of training sample and queries
    queries: int = Field(1000, ge=1)  # rows that recall is measured with, not trained on; at most a tenth of all
    target_recall: float = Field(0.95, gt=0, le=1)  # recall@2 after re-ranking that each kind of query is tuned to
    min_recall: float | None = Field(0.95, ge=0, le=1)  # the same figure, below which the build fails; None: never
    gated: tuple[Direction, ...] = Field(("image",), min_length=1)  # the kinds of query that it is asked of
    serving_shards: int | None = Field(None, ge=1)
    vectors_per_task: int | None = Field(None, ge=1)  # None: a million, or fewer to make 16 tasks of a smaller corpus
    train_cpus: int = Field(2, ge=1)  # threads of the one process that trains, or measures; no more than a node has
    add_gpus: float = Field(0, ge=0)  # of each process that encodes

    @model_validator(mode="after")
    def _floor_below_target(self) -> Self:
        if self.min_recall is not None and self.min_recall > self.target_recall:
            raise ValueError(
                f"min_recall is {self.min_recall}, but the index is tuned to target_recall {self.target_recall} only"
            )
        return self


class IndexRecipe(IndexSettings):
    """factory: `auto` (stages/index/factory.py says how it decides), `autofaiss` (what that library recommends for
    memory_gib), or a FAISS string such as `OPQ64,IVF4096,PQ64`.
    None stands for a number that is chosen from the corpus.
    """

    key: Key = "image"  # what is searched: the pairs' images (as in the paper), their captions, or the mean of both
    factory: str = "auto"
    memory_gib: float | None = Field(None, gt=0)  # for codes and ids of all rows, which bounds what auto chooses
    nlist: int | None = Field(None, ge=1)  # inverted lists, where factory is auto
    train_sample: int | None = Field(None, ge=1)  # vectors to train on
    train_gpus: float = Field(0, ge=0)
    train_memory_gib: float = Field(4, gt=0)

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        if self.factory == "autofaiss" and self.memory_gib is None:
            raise ValueError("factory is autofaiss, which asks how much memory there is: set memory_gib")
        if self.nlist is not None and self.factory != "auto":
            raise ValueError(f"nlist is {self.nlist}, but factory {self.factory!r} names its own; leave nlist out")
        return self
