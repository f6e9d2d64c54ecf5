"""Recipes: one YAML file plus `section.key=value` overrides, read into one frozen value before anything starts."""

import argparse
import difflib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from pipeline.credentials import REFUSAL, holds_credentials, redact
from pipeline.errors import RecipeError

Json = Any
"""What json.dumps takes: None, bool, int, float, str, and lists and string-keyed dicts of these."""


class Section(BaseModel):
    """A part of a recipe: frozen, and a key it does not know is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


Recipe = TypeVar("Recipe", bound=Section)


def recipe_arguments(description: str | None) -> argparse.ArgumentParser:
    """What every job that takes a recipe takes."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path, help="a YAML file; recipes lie in jobs/recipes/")
    parser.add_argument(
        "overrides", nargs="*", default=[], metavar="section.key=value", help="settings that win over the file's"
    )
    return parser


def load_recipe(kind: type[Recipe], path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """overrides: such as `filter.min_clip_score=0.3`; values are YAML.

    Raises RecipeError with every fault of the recipe in one report. A url with credentials is a fault wherever it
    stands, for recipes are written down; no report repeats them.
    """
    values = _read_yaml(path)
    faults = [fault for override in overrides for fault in _apply(override, values)]
    faults += [f"{where}: {REFUSAL}" for where, text in _texts(values) if holds_credentials(text)]
    try:
        recipe = kind.model_validate(values)
    except ValidationError as error:
        faults += [_sentence(kind, fault) for fault in error.errors()]
    if faults:
        raise RecipeError("\n".join(f"{path.name}: {redact(fault)}" for fault in faults))
    return recipe


def dump_recipe(recipe: Section) -> str:
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def _read_yaml(path: Path) -> dict[str, Json]:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RecipeError(f"{path} does not exist; recipes lie in jobs/recipes/") from None
    except OSError as error:
        raise RecipeError(f"{path} cannot be read: {error.strerror}") from None
    except yaml.MarkedYAMLError as error:
        raise RecipeError(f"{path} is not YAML: {_yaml_fault(error)}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path} is not YAML: {error}") from None
    if not isinstance(values, dict):
        raise RecipeError(f"{path} should hold sections (a mapping), found {type(values).__name__}")
    return values


def _yaml_fault(error: yaml.MarkedYAMLError) -> str:
    """Without the line itself, which may hold a secret."""
    mark = error.problem_mark
    return f"{error.problem}" + (f" in line {mark.line + 1}, column {mark.column + 1}" if mark else "")


def _texts(values: Json, where: str = "") -> Iterator[tuple[str, str]]:
    """Every text in a recipe, with the dotted name of the setting."""
    if isinstance(values, str):
        yield where, values
    elif isinstance(values, dict | list):
        for name, inner in values.items() if isinstance(values, dict) else enumerate(values):
            yield from _texts(inner, f"{where}.{name}" if where else str(name))


def _apply(override: str, values: dict[str, Json]) -> Iterator[str]:
    """Set one `a.b.c=value` in place; a fault is yielded as a sentence."""
    dotted, equals, text = override.partition("=")
    if not equals or not dotted:
        yield f"{override!r} is not an override; write section.key=value"
        return
    *sections, key = dotted.split(".")
    for name in sections:
        inner = values.setdefault(name, {})
        if inner is None:
            inner = values[name] = {}
        if not isinstance(inner, dict):
            yield f"{override!r}: {name} holds {inner!r}, which has no settings inside"
            return
        values = inner
    try:
        values[key] = yaml.safe_load(text)
    except yaml.YAMLError:
        yield f"{override!r}: {text!r} is not a YAML value"


def _sentence(kind: type[Section], fault: Any) -> str:
    where = ".".join(str(part) for part in fault["loc"])
    if fault["type"] != "extra_forbidden":
        # Where settings disagree, the input is the whole section, and the message names the settings.
        shown = fault["type"] != "missing" and not isinstance(fault["input"], dict)
        found = f" (found {redact(str(fault['input']))[:80]!r})" if shown else ""
        return f"{where or 'recipe'}: {fault['msg'].removeprefix('Value error, ')}{found}"
    *sections, key = fault["loc"]
    allowed = _settings(kind, sections)
    near = difflib.get_close_matches(str(key), allowed, 1)
    hint = f"; did you mean {'.'.join([*map(str, sections), near[0]])}?" if near else ""
    return f"{where} is not a setting{hint} ({'.'.join(map(str, sections)) or 'the recipe'} has {', '.join(allowed)})"


def _settings(kind: type[Section], sections: Sequence[Any]) -> list[str]:
    """The names that are allowed in a section; union members and list items are looked through."""
    kinds: list[Any] = [kind]
    for name in sections:
        kinds = [inner for k in kinds for inner in _inner(k, name)]
    return sorted({field for k in kinds for field in k.model_fields})


def _inner(kind: type[Section], name: Any) -> list[type[Section]]:
    field = kind.model_fields.get(str(name))
    return _sections_in(field.annotation) if field else [kind]  # a list index or a union's tag names no field


def _sections_in(annotation: Any) -> list[type[Section]]:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return [annotation]
    return [section for inner in get_args(annotation) for section in _sections_in(inner)]
