"""The recipe's `filter` section: what a pair has to be like, source by source, and how the corpus is laid out."""

from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, Field, TypeAdapter, ValidationInfo, field_validator

from pipeline.recipe import Section
from pipeline.run import LocalPath, Root
from stages.filter.text_rules import TextRules

Settings = TypeVar("Settings", bound=Section)

THIS_RUN = "this"
ROOT: TypeAdapter[str] = TypeAdapter(Root)

RunInput = Annotated[str, AfterValidator(lambda name: name if name == THIS_RUN else ROOT.validate_python(name))]
"""Another run's root, or the run itself."""


class Thresholds(Section):
    """null switches a rule off; a limit itself is allowed. The paper filters by score and text (§4.1); values: ours."""

    min_clip_score: float | None = Field(default=0.28, ge=-1, le=1)  # cosine of image and caption
    min_short_side_px: int | None = Field(default=64, ge=1)  # as fetched
    max_aspect: float | None = Field(default=3.0, ge=1)  # long side / short side, as fetched
    max_nsfw: float | None = Field(default=None, ge=0, le=1)  # the source's own score; a row without one passes
    max_watermark: float | None = Field(default=None, ge=0, le=1)  # the same
    text: TextRules | None = TextRules()


class Placeholders(Section):
    """When a picture that stands under many captions shows none of them (a logo, "image not available"). The values are
    ours: docs/operations.md says what they were tried on."""

    min_captions: int = Field(default=10, ge=2)  # distinct ones; a limit itself is allowed, as below
    max_similarity: float = Field(default=0.6, ge=-1, le=1)  # mean cosine of two of them


class EvaluationRule(Section):
    """When a pair shows a picture of an evaluation set, beside equal bytes: looser than what makes a duplicate, because
    a pair too many is a pair, and one too few spoils a measurement. The values are ours, as above."""

    max_bits: int = Field(default=8, ge=0, le=64)  # in which the perceptual hashes differ
    min_cosine: float = Field(default=0.5, ge=-1, le=1)  # of the image embeddings


class FilterRecipe(Section):
    """inputs: roots whose pairs become one corpus, `this` for the run's own beside them; none: the run's own alone.
    sources: by source name, the thresholds that differ from the defaults.
    exclude: pair ids, urls, domains (with their subdomains) or sha256, or the path of a text file of them.
    evaluation_sets: by name, a folder of pictures or a parquet of phash and embedding; pairs that show one leave.
    placeholders: one picture under many unrelated captions leaves with all its pairs; null: it stays.
    duplicates: `drop` keeps the smallest pair_id of pairs that show the same picture.
    images: `link` leaves the pictures in the download tars; `copy` writes tars of the kept ones.
    """

    inputs: tuple[RunInput, ...] = ()
    defaults: Thresholds = Thresholds()
    sources: dict[str, Thresholds] = {}
    exclude: tuple[str, ...] | str = ()
    evaluation_sets: dict[Annotated[str, Field(pattern=r"^[a-z0-9_-]+$")], LocalPath] = {}
    evaluation_rule: EvaluationRule = EvaluationRule()
    placeholders: Placeholders | None = None
    duplicates: Literal["keep", "drop"] = "keep"
    shard_rows: int = Field(default=10_000, ge=1)
    images: Literal["link", "copy"] = "link"

    @field_validator("sources")
    @classmethod
    def _complete(cls, sources: dict[str, Thresholds], info: ValidationInfo) -> dict[str, Thresholds]:
        """So that the resolved recipe shows every source's thresholds in full, and reads back as the same recipe."""
        defaults = info.data.get("defaults", Thresholds())
        return {name: overridden(defaults, thresholds) for name, thresholds in sources.items()}

    @property
    def compares_pictures(self) -> bool:
        """Of all pairs with each other, so that the run has the stage `filter_duplicates`."""
        return self.duplicates == "drop" or self.placeholders is not None

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
