"""The recipe's `interleave` section: which pairs a sample is made of, and what is written."""

from typing import Literal, Self

from pydantic import Field, model_validator

from pipeline.recipe import Section
from stages.interleave.band import LARGEST, Band, Metric
from stages.neighbors import Device


class InterleaveRecipe(Section):
    """A sample is a query and the `supports` pairs whose images lie at a distance in [lo, hi] from the query's and
    whose captions are most similar to its own (Re-ViLM §4.2)."""

    metric: Metric = "l2"  # how a distance is read: ‖x−y‖, ‖x−y‖² (as FAISS returns it), or 1−x·y
    lo: float = Field(0.4, ge=0)
    hi: float = Field(0.6, gt=0)
    supports: int = Field(4, ge=1)
    sources: tuple[str, ...] = ()  # whose pairs take part; none: all of the corpora's
    drop_same_caption: bool = False  # True: no support has the query's own caption; the paper says nothing of it
    on_starved: Literal["skip", "short"] = (
        "skip"  # a query with fewer candidates: rejected, or a sample of what there is
    )
    probe_queries: int = Field(2000, ge=1)  # drawn to look at the band before anything is mined
    max_starved: float = Field(0.5, ge=0, le=1)  # share of them that may starve; beyond it the run stops
    seed: int = Field(0, ge=0)  # of the probe and of the order in a sample
    neighbors: str | None = None  # root whose neighbours of the same corpus every pair is given
    materialize: bool = True  # False: parquet alone, and pictures are read where they lie
    engine: Literal["auto", "sweep", "products"] = "auto"  # auto: products on a GPU, else the cheaper by the probe
    device: Device = Field(default="auto", validate_default=True)
    queries_per_task: int = Field(20_000, ge=1)  # at least; whole shards of the corpora

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        largest = LARGEST[self.metric]
        if self.lo >= self.hi:
            raise ValueError(f"lo is {self.lo} and hi is {self.hi}: lo has to be smaller")
        if self.lo > largest:
            raise ValueError(
                f"lo is {self.lo}, and the distance of two unit vectors is at most {largest} as metric {self.metric} "
                f"reads it: set lo and hi within 0 and {largest}"
            )
        if self.engine == "sweep" and self.device == "cuda":
            raise ValueError(
                "engine sweep runs on a processor, and device is cuda: set device to cpu, or engine to auto"
            )
        return self

    @property
    def band(self) -> Band:
        return Band(self.metric, self.lo, self.hi)
