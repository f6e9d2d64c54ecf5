"""The settings of the download stage."""

from typing import Annotated, Literal

from pydantic import Field

from pipeline.recipe import Section

OF_THE_RESULT = {"size_px", "jpeg_quality", "max_pixels"}
"""What decides the bytes of a success, and is the stage's fingerprint. The rest may change between resumes."""


class DownloadRecipe(Section):
    engine: Literal["native"] = "native"
    size_px: int = Field(256, ge=16)  # of the short side; only ever shrunk to it
    jpeg_quality: int = Field(95, ge=1, le=100)
    max_pixels: int = Field(50_000_000, gt=0)  # as the header states, before anything is decoded
    deadline_s: float = Field(20, gt=0)  # a url, retries and redirects included
    max_bytes: int = Field(20_000_000, gt=0)
    max_redirects: int = Field(5, ge=0)
    retries: int = Field(1, ge=0)  # for transient reasons
    backoff_s: float = Field(1, ge=0)
    connections: int = Field(32, ge=1)  # of a shard
    connections_per_host: int = Field(8, ge=1)
    # host:port, as in the url, that need not be publicly routable
    allow: frozenset[Annotated[str, Field(pattern=r"^[^A-Z/\s]+:\d+$")]] = frozenset()
    respect_opt_out: bool = True  # X-Robots-Tag
    contact: str = "no contact given"  # told to every server: a page or an address
