"""The recipe's section `ingest`."""

from typing import Annotated

from pydantic import Field, field_validator, model_validator

from pipeline.recipe import Section
from stages.ingest.presets import PRESETS


class Columns(Section):
    """The source's own names of columns, where they are other than the preset's."""

    url: str | None = None
    caption: str | None = None
    width: str | None = None
    height: str | None = None
    clip_score: str | None = None
    nsfw: str | None = None
    watermark: str | None = None
    aesthetic: str | None = None

    def given(self) -> dict[str, str]:
        return self.model_dump(exclude_none=True)


class Prefilter(Section):
    """Bounds on the source's own columns. A value on the bound is kept, and so is a row without one (null, NaN)."""

    min_clip_score: float | None = None  # cosine
    min_width: int | None = None  # px
    min_height: int | None = None  # px
    max_nsfw: float | None = None  # 0…1
    max_watermark: float | None = None  # 0…1
    min_aesthetic: float | None = None  # 0…10

    def given(self) -> dict[str, float]:
        return self.model_dump(exclude_none=True)

    def fields(self) -> set[str]:
        return {bound.partition("_")[2] for bound in self.given()}


class SourceRecipe(Section):
    """A named list of pairs."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9_-]+$")]
    preset: str
    files: Annotated[tuple[str, ...], Field(min_length=1)]  # paths, globs or fsspec urls
    columns: Columns = Columns()
    prefilter: Prefilter = Prefilter()
    folder: str | None = None  # of the pictures, where they lie on disk already
    split: str | None = None  # None: every one; else only pairs of this one are rows

    @field_validator("preset")
    @classmethod
    def _known(cls, preset: str) -> str:
        if preset not in PRESETS:
            raise ValueError(f"the presets are {', '.join(PRESETS)}")
        return preset

    @model_validator(mode="after")
    def _only_what_the_preset_takes(self) -> "SourceRecipe":
        preset, takes = PRESETS[self.preset], PRESETS[self.preset].settings
        given = {name for name in ("columns", "prefilter", "folder", "split") if getattr(self, name) not in _NOT_GIVEN}
        if given - takes:
            raise ValueError(f"preset {self.preset} ({preset.form}) takes no {', '.join(sorted(given - takes))}")
        if "folder" in takes - given:
            raise ValueError(f"preset {self.preset} needs `folder`, where the pictures lie")
        unnamed = self.prefilter.fields() - self.all_columns().keys()
        if unnamed:
            raise ValueError(f"prefilter needs the source's names in columns.{', columns.'.join(sorted(unnamed))}")
        return self

    def all_columns(self) -> dict[str, str]:
        """Field → column: the preset's, then the recipe's."""
        return {**PRESETS[self.preset].columns, **self.columns.given()}


_NOT_GIVEN = (None, Columns(), Prefilter())


class IngestRecipe(Section):
    sources: Annotated[tuple[SourceRecipe, ...], Field(min_length=1)]
    shard_size: Annotated[int, Field(ge=1)] = 10_000  # pairs

    @field_validator("sources")
    @classmethod
    def _names_differ(cls, sources: tuple[SourceRecipe, ...]) -> tuple[SourceRecipe, ...]:
        names = [source.name for source in sources]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two sources are named {', '.join(twice)}; a pair's id starts with its source's name")
        return sources
