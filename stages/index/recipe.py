"""The recipe's `index` section: which index to build, and what recall it has to reach."""

from typing import Self

from pydantic import Field, model_validator

from pipeline.recipe import Section


class IndexRecipe(Section):
    """factory: `auto` (stages/index/factory.py says how it decides) or a FAISS string such as `OPQ64,IVF4096,PQ64`.
    None stands for a number that is chosen from the corpus.
    """

    factory: str = "auto"
    nlist: int | None = Field(None, ge=1)  # inverted lists, where factory is auto
    train_sample: int | None = Field(None, ge=1)  # vectors to train on
    seed: int = Field(0, ge=0)  # of the draw of training sample and queries
    queries: int = Field(1000, ge=1)  # rows kept out of the training sample, at most a tenth of the corpus
    target_recall: float = Field(0.95, gt=0, le=1)  # recall@2 of image queries after re-ranking; decides the tuning
    min_recall: float | None = Field(0.95, ge=0, le=1)  # the same figure, below which the build fails; None: never
    serving_shards: int | None = Field(None, ge=1)
    vectors_per_task: int = Field(1_000_000, ge=1)

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        if self.nlist is not None and self.factory != "auto":
            raise ValueError(f"nlist is {self.nlist}, but factory {self.factory!r} names its own; leave nlist out")
        if self.min_recall is not None and self.min_recall > self.target_recall:
            raise ValueError(
                f"min_recall is {self.min_recall}, but the index is tuned to target_recall {self.target_recall} only"
            )
        return self
