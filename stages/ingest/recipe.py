"""The recipe's section `ingest`."""

from typing import Annotated, Any, Literal

from pydantic import Field, WrapValidator, field_validator, model_validator

from pipeline.reasons import OF_DOWNLOAD, TRANSIENT, Reason
from pipeline.recipe import Section
from pipeline.run import Root
from stages.ingest.presets import PRESETS

REJECTS = "rejects"


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
            raise ValueError(f"the presets are {', '.join([*PRESETS, REJECTS])}")
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


class RejectedRows(Section):
    """A second pass: the rows of another run that its download rejected for these reasons, under their old pair ids."""

    preset: Literal["rejects"]
    root: Root
    reasons: Annotated[tuple[Reason, ...], Field(min_length=1)] = tuple(sorted(TRANSIENT))

    @field_validator("reasons")
    @classmethod
    def _of_download(cls, reasons: tuple[Reason, ...]) -> tuple[Reason, ...]:
        others = sorted(set(reasons) - OF_DOWNLOAD)
        if others:
            raise ValueError(f"{others[0]} is no reason of download, which has {', '.join(sorted(OF_DOWNLOAD))}")
        return tuple(sorted(set(reasons)))


def _by_preset(source: Any, _: object) -> SourceRecipe | RejectedRows:
    """A union of pydantic's would name its members in the place of every fault."""
    is_rejects = isinstance(source, RejectedRows) or (isinstance(source, dict) and source.get("preset") == REJECTS)
    return RejectedRows.model_validate(source) if is_rejects else SourceRecipe.model_validate(source)


Source = Annotated[SourceRecipe | RejectedRows, WrapValidator(_by_preset)]


class IngestRecipe(Section):
    """duplicates: of rows with the same url (or place of a local picture) and caption, `drop` keeps the first."""

    sources: Annotated[tuple[Source, ...], Field(min_length=1)]
    shard_size: Annotated[int, Field(ge=1)] = 10_000  # pairs
    duplicates: Literal["drop", "keep"] = "drop"

    @field_validator("sources")
    @classmethod
    def _fit_together(cls, sources: tuple[Source, ...]) -> tuple[Source, ...]:
        names = [source.name for source in sources if isinstance(source, SourceRecipe)]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two sources are named {', '.join(twice)}; a pair's id starts with its source's name")
        if len(names) < len(sources) != 1:
            raise ValueError(
                f"preset {REJECTS} stands alone: a second pass is a run of its own, over one root (filter.inputs makes "
                "one corpus of several runs)"
            )
        return sources

    @property
    def lists(self) -> tuple[SourceRecipe, ...]:
        """The sources that are lists: all, or none."""
        return tuple(source for source in self.sources if isinstance(source, SourceRecipe))

    @property
    def second_pass(self) -> RejectedRows | None:
        return next((source for source in self.sources if isinstance(source, RejectedRows)), None)
