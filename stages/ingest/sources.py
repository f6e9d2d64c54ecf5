"""From a recipe's sources to their files, and whether each file is what its preset says."""

from collections.abc import Iterator
from dataclasses import replace

from pipeline.credentials import holds_credentials
from pipeline.errors import InputError
from stages.ingest.lists import ListFile, absolute, base_name, matches
from stages.ingest.presets import PRESETS, Preset
from stages.ingest.recipe import IngestRecipe, SourceRecipe

ALWAYS_READ = {"url", "caption", "nsfw", "watermark"}
MAY_BE_MISSING = {"nsfw", "watermark"}  # unless the recipe names them


def check_lists(recipe: IngestRecipe) -> list[str]:
    """Every fault of the files, seen from their heads alone: which file, what was found, what to change."""
    return [fault for n, source in enumerate(recipe.lists) for fault in _faults(source, f"ingest.sources[{n}]")]


def lists_of(source: SourceRecipe) -> list[ListFile]:
    """In the order of their names. Raises InputError where there are none, or parts do not match."""
    found = sorted((base_name(path), path, size) for p in source.files for path, size in matches(p).items())
    sizes = {path: size for _, path, size in found}  # a file that two patterns name is read once
    preset = PRESETS[source.preset]
    if not sizes:
        raise InputError(f"source {source.name}: {', '.join(source.files)} matches no file")
    groups = [_parts(list(sizes), preset)] if preset.parts else [(path,) for path in sizes]
    return [_list(source, paths, sizes) for paths in groups]


def _parts(paths: list[str], preset: Preset) -> tuple[str, ...]:
    """Of several files that are one list together: in the order of the preset's words."""
    named = [[path for path in paths if part in base_name(path).lower()] for part in preset.parts]
    if len(paths) != len(preset.parts) or any(len(found) != 1 for found in named):
        names = ", ".join(base_name(path) for path in paths)
        raise InputError(f"{names}: should be {preset.form}")
    return tuple(path for (path,) in named)


def _list(source: SourceRecipe, paths: tuple[str, ...], sizes: dict[str, int]) -> ListFile:
    asked = source.columns.given().keys() | source.prefilter.fields()
    columns = {field: column for field, column in source.all_columns().items() if field in ALWAYS_READ | asked}
    return ListFile(
        paths=paths,
        sizes=tuple(sizes[path] for path in paths),
        columns=columns,
        optional=frozenset(MAY_BE_MISSING - asked),
        split=source.split,
        folder=absolute(source.folder).rstrip("/") if source.folder else None,
    )


def _faults(source: SourceRecipe, where: str) -> Iterator[str]:
    locations = [*source.files, *filter(None, [source.folder])]
    if any(holds_credentials(location) for location in locations):
        yield f"{where} has a url with credentials; give them through the environment or the cloud's own files"
        return
    missing = [pattern for pattern in source.files if not matches(pattern)]
    yield from (f"{where}.files: {pattern} matches no file" for pattern in missing)
    try:
        files = [] if missing else lists_of(source)
    except InputError as error:
        yield f"{error} ({where})"
        return
    for file in files:
        fault = _fault(PRESETS[source.preset], file)
        if fault:
            yield f"{fault}. {_advice(source.preset, file, where)}"


def _fault(preset: Preset, file: ListFile) -> str | None:
    try:
        preset.reader(file).check(file)
    except InputError as error:
        return str(error)
    return None


def _advice(given: str, file: ListFile, where: str) -> str:
    """What the preset expects, and which other presets the file would do for."""
    expected = f"{given} is {PRESETS[given].form}"
    fitting = [name for name, preset in PRESETS.items() if name != given and _would_fit(preset, file)]
    if not fitting:
        return f"{expected} ({where})"
    wanted = " or ".join(f'"{name}"' for name in fitting)
    forms = ", ".join(f"{name} is {PRESETS[name].form}" for name in fitting)
    return f"{expected}; {forms}: is {where}.preset {wanted}?"


def _would_fit(preset: Preset, file: ListFile) -> bool:
    if preset.parts:
        return False
    optional = frozenset(preset.columns.keys() - {"url", "caption"})
    return _fault(preset, replace(file, columns=preset.columns, optional=optional)) is None
