"""The settings of the download stage."""

from importlib.util import find_spec
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from pipeline.recipe import Section

OF_THE_RESULT = {"size_px", "jpeg_quality", "max_pixels"}
WHERE_CHANGED = {"engine": "native", "quality": "exact"}
"""Of the result too; by the value that leaves no trace in a fingerprint."""
OF_THE_RUN = {"trusted", "opt_out", "workers", "max_transient", "min_success", "check_urls"}
"""What no single request knows of."""

Endpoint = Annotated[str, Field(pattern=r"^[^A-Z/\s]+:\d+$")]
"""host:port"""


class DownloadRecipe(Section):
    # img2dataset: that package (extra `img2dataset`) decodes, shrinks and encodes; where the list is trusted it fetches
    # too, and of what stands below knows `connections`, `retries`, `respect_opt_out` and, for each wait, `deadline_s`
    engine: Literal["native", "img2dataset"] = "native"
    trusted: bool = False
    quality: Literal["exact", "fast"] = "exact"  # of shrinking; fast: of JPEGs at twice the stored size and above
    size_px: int = Field(256, ge=16)  # of the short side; only ever shrunk to it
    jpeg_quality: int = Field(95, ge=1, le=100)
    max_pixels: int = Field(50_000_000, gt=0)  # as the header states, before anything is decoded
    deadline_s: float = Field(20, gt=0)  # that a url may hold a connection, retries and redirects included
    shard_deadline_s: float = Field(21_600, gt=0)  # for all urls of a shard; the rest are rejects (deadline)
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
    ca_file: str | None = None  # PEM, in place of certifi's; for networks with an authority of their own

    @model_validator(mode="after")
    def _only_what_the_engine_takes(self) -> "DownloadRecipe":
        if self.engine == "native":
            if self.trusted:
                raise ValueError("trusted is for engine img2dataset; the native engine never lifts its limits")
            return self
        if self.quality == "fast":
            raise ValueError("quality fast is for engine native; img2dataset has one way to shrink")
        if self.trusted and self.opt_out:
            raise ValueError("opt_out is not heeded by img2dataset's own fetching; leave trusted out")
        if not find_spec("img2dataset"):  # found, not imported: that takes seconds
            raise ValueError("engine img2dataset needs its package: pip install -e '.[img2dataset]'")
        return self

    def of_the_result(self) -> dict[str, Any]:
        """What decides the bytes of a success, and is the stage's fingerprint: the rest may change between resumes.
        What came later leaves a trace only where it is not as it always was."""
        settings = self.model_dump(mode="json", include={*OF_THE_RESULT, *WHERE_CHANGED})
        return {name: value for name, value in settings.items() if WHERE_CHANGED.get(name) != value}

    def of_a_request(self) -> dict[str, Any]:
        return self.model_dump(exclude={*OF_THE_RESULT, *WHERE_CHANGED, *OF_THE_RUN}, exclude_none=True)
