"""The settings of the download stage."""

from typing import Annotated, Any, Literal

from pydantic import Field

from pipeline.recipe import Section

OF_THE_RESULT = {"size_px", "jpeg_quality", "max_pixels"}
"""What decides the bytes of a success, and is the stage's fingerprint. The rest may change between resumes."""

OF_THE_RUN = {"engine", "opt_out", "workers", "max_transient", "min_success", "check_urls"}
"""What no single request knows of."""

Endpoint = Annotated[str, Field(pattern=r"^[^A-Z/\s]+:\d+$")]
"""host:port"""


class DownloadRecipe(Section):
    engine: Literal["native"] = "native"
    size_px: int = Field(256, ge=16)  # of the short side; only ever shrunk to it
    jpeg_quality: int = Field(95, ge=1, le=100)
    max_pixels: int = Field(50_000_000, gt=0)  # as the header states, before anything is decoded
    deadline_s: float = Field(20, gt=0)  # that a url may hold a connection, retries and redirects included
    shard_deadline_s: float = Field(3600, gt=0)  # for all urls of a shard; the rest are rejects (deadline)
    max_bytes: int = Field(20_000_000, gt=0)
    max_redirects: int = Field(5, ge=0)
    retries: int = Field(1, ge=0)  # for transient reasons
    backoff_s: float = Field(1, ge=0)
    connections: int = Field(32, ge=1)  # of a shard
    connections_per_host: int = Field(8, ge=1)  # of the whole run
    workers: int | None = Field(None, ge=1)  # shards at once; null: as many as the cluster has CPUs for
    allow: frozenset[Endpoint] = frozenset()  # as in the url; need not be publicly routable
    connect_to: Endpoint | None = None  # for tests: every connection goes there, whatever host the url names
    respect_opt_out: bool = True  # X-Robots-Tag
    opt_out: tuple[str, ...] | str = ()  # domains and urls never to be asked, or the path of a text file of them
    contact: str = "no contact given"  # told to every server: a page or an address
    max_transient: float = Field(0.9, ge=0, le=1)  # a shard that fails more of its urls for the time being is not made
    min_success: float = Field(0.2, ge=0, le=1)  # of the last shards' urls; below it the run stops
    check_urls: int = Field(48, ge=0)  # that are tried before anything starts; 0: none

    def of_a_request(self) -> dict[str, Any]:
        return self.model_dump(exclude=OF_THE_RESULT | OF_THE_RUN)
