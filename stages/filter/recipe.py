"""The recipe's `filter` section: what a pair has to be like, source by source, and how the corpus is laid out."""

from typing import Any, Literal, TypeVar

from pydantic import Field, ValidationInfo, field_validator

from pipeline.recipe import Section
from pipeline.run import Root
from stages.filter.text_rules import TextRules

Settings = TypeVar("Settings", bound=Section)


class Thresholds(Section):
    """null switches a rule off; a limit itself is allowed. The paper filters by score and text (§4.1); values: ours."""

    min_clip_score: float | None = Field(default=0.28, ge=-1, le=1)  # cosine of image and caption
    min_short_side_px: int | None = Field(default=64, ge=1)  # as fetched
    max_aspect: float | None = Field(default=3.0, ge=1)  # long side / short side, as fetched
    max_nsfw: float | None = Field(default=None, ge=0, le=1)  # the source's own score; a row without one passes
    max_watermark: float | None = Field(default=None, ge=0, le=1)  # the same
    text: TextRules | None = TextRules()


class FilterRecipe(Section):
    """inputs: roots whose pairs become one corpus; none: this run's own.
    sources: by source name, the thresholds that differ from the defaults.
    exclude: pair ids, urls, domains (with their subdomains) or sha256, or the path of a text file of them.
    duplicates: `drop` keeps the smallest pair_id of pairs that show the same picture.
    images: `link` leaves the pictures in the download tars; `copy` writes tars of the kept ones.
    """

    inputs: tuple[Root, ...] = ()
    defaults: Thresholds = Thresholds()
    sources: dict[str, Thresholds] = {}
    exclude: tuple[str, ...] | str = ()
    duplicates: Literal["keep", "drop"] = "keep"
    shard_rows: int = Field(default=10_000, ge=1)
    images: Literal["link", "copy"] = "link"

    @field_validator("sources")
    @classmethod
    def _complete(cls, sources: dict[str, Thresholds], info: ValidationInfo) -> dict[str, Thresholds]:
        """So that the resolved recipe shows every source's thresholds in full, and reads back as the same recipe."""
        defaults = info.data.get("defaults", Thresholds())
        return {name: overridden(defaults, thresholds) for name, thresholds in sources.items()}

    def thresholds(self, source: str) -> Thresholds:
        return self.sources.get(source, self.defaults)


def overridden(base: Settings, override: Settings) -> Settings:
    """base with every field that was given in override; a section inside is overridden field by field too."""
    changed: dict[str, Any] = {}
    for name in override.model_fields_set:
        theirs, ours = getattr(override, name), getattr(base, name)
        both = isinstance(theirs, Section) and isinstance(ours, Section)
        changed[name] = overridden(ours, theirs) if both else theirs
    return base.model_copy(update=changed)
