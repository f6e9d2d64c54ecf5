"""The recipe's section `plan`: the cluster, its prices, and what cannot be read on this machine. No stage reads it."""

from typing import Annotated

from pydantic import Field

from pipeline.recipe import Section

Share = Annotated[float, Field(gt=0, le=1)]


class Prices(Section):
    """In one currency. The defaults are assumptions, of the order of what clouds ask; put in your own."""

    cpu_hour: float = Field(0.04, ge=0)
    gpu_hour: float = Field(2.0, ge=0)
    storage_tb_month: float = Field(23.0, ge=0)
    fetched_tb: float = Field(0.0, ge=0)  # of the crawl's incoming traffic


class Survival(Section):
    """Of a source, the share of the rows that come through a stage; None: measured, else stages/plan/stated.py's."""

    prefilter: Share | None = None  # of the rows of the list, by the source's own columns
    download: Share | None = None
    filter_judge: Share | None = None  # after the prefilter, where there is one


class PlanRecipe(Section):
    """By source: rows of lists that are not on this machine, survival, and the largest host's share of the urls."""

    rows: dict[str, Annotated[int, Field(ge=1)]] = {}
    survival: dict[str, Survival] = {}
    largest_host: dict[str, Share] = {}
    cpus: int | None = Field(None, ge=1)  # of the whole cluster; None: this machine's
    gpus: int = Field(0, ge=0)
    network_gbit: float = Field(10, gt=0)  # a second, of the whole cluster
    fetch_s: float = Field(1.0, gt=0)  # of a url on average, dead ones included
    fetched_kb: float = Field(155, gt=0)  # of a picture as fetched, on average: the recorded crawl of CC3M's list
    embed_per_s: float | None = Field(None, gt=0)  # pairs of one worker; None: measured, else ViT-B-32's
    prices: Prices = Prices()
