"""The recipe's sections `interleave` and `fewshot`: which pairs a sample is made of, and what is written."""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, PositiveInt, model_validator

from pipeline.recipe import Section
from pipeline.run import Root
from stages.interleave.band import LARGEST, Band, Metric
from stages.neighbors import Device

Starved = Literal["skip", "short"]
"""A query with fewer supports than asked for is rejected, or given what there is."""
Selection = Literal["random", "rices", "paper"]


def _ascending(numbers: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(sorted(set(numbers)))


class BandRecipe(Section):
    """Which pairs are in a query's band, and how they are looked for."""

    metric: Metric = "l2"  # how a distance is read: ‖x−y‖, ‖x−y‖² (as FAISS returns it), or 1−x·y
    lo: float = Field(0.4, ge=0, allow_inf_nan=False)
    hi: float = Field(0.6, gt=0, allow_inf_nan=False)
    drop_same_caption: bool = False  # True: no support has the query's own caption; the paper says nothing of it
    on_starved: Starved = "skip"
    seed: int = Field(0, ge=0)  # of the order in a sample, and of what is drawn to be shown
    engine: Literal["auto", "sweep", "products"] = "auto"  # auto: products on a GPU, else a sweep or the cheaper
    device: Device = Field(default="auto", validate_default=True)

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


class InterleaveRecipe(BandRecipe):
    """A sample is a query and the `supports` pairs whose images lie at a distance in [lo, hi] from the query's and
    whose captions are most similar to its own (Re-ViLM §4.2)."""

    supports: int = Field(4, ge=1)
    sources: tuple[str, ...] = ()  # whose pairs take part; none: all of the corpora's
    probe_queries: int = Field(2000, ge=1)  # drawn to look at the band before anything is mined
    max_starved: float = Field(0.5, ge=0, le=1)  # share of them that may starve; beyond it the run stops
    neighbors: Root | None = None  # root whose neighbours of the same corpus every pair is given
    materialize: bool = True  # False: parquet alone, and pictures are read where they lie
    queries_per_task: int = Field(20_000, ge=1)  # at least; whole shards of the corpora


class FewshotRecipe(BandRecipe):
    """Every test picture is given supports of the train split, for every number of shots: `random` ones, the nearest by
    image (`rices`), or those that the band leaves and the query's own caption chooses (`paper`), which leaks: a model
    that is asked for the caption has been helped by it."""

    shots: Annotated[tuple[PositiveInt, ...], AfterValidator(_ascending)] = Field((2, 4, 8), min_length=1)
    selection: Selection = "rices"
    on_starved: Starved = "short"  # skip: scores of what is left do not compare with those of the whole split
    queries_per_task: int = Field(1000, ge=1)

    @property
    def leaks(self) -> bool:
        return self.selection == "paper"

    def mining(self, supports: int) -> InterleaveRecipe:
        """How so many candidates of a query are mined."""
        return InterleaveRecipe(supports=supports, **self.model_dump(include=set(BandRecipe.model_fields)))
