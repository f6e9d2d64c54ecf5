"""Imports point one way, and nobody else's module takes the place of ours."""

import ast
import importlib.metadata
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
OURS = ("pipeline", "stages", "jobs", "model", "demo", "trials")
MAY_IMPORT = {
    "pipeline": {"pipeline"},
    "demo": {"demo", "pipeline", "stages"},
    "stages": {"stages", "pipeline"},
    "trials": {"trials", "pipeline", "stages", "model", "demo"},
    "jobs": set(OURS),
    "model": {"model"},
    "model/training": {"model", "pipeline", "stages"},
    "model/evaluation": {"model", "pipeline", "stages"},
    "model/serving": {"model", "pipeline", "stages"},
}
FILES = [path for package in OURS for path in sorted((ROOT / package).rglob("*.py"))]
READERS = [path for path in FILES if path.relative_to(ROOT).parts[0] in ("stages", "model")]
"""Of what stages made."""


def imports_of(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_one_way(path: Path) -> None:
    package, folder = path.relative_to(ROOT).parts[0], str(path.relative_to(ROOT).parent)
    ours = {name.split(".")[0] for name in imports_of(path)} & set(OURS)
    assert ours <= MAY_IMPORT.get(folder, MAY_IMPORT[package])


@pytest.mark.parametrize("path", READERS, ids=lambda path: str(path.relative_to(ROOT)))
def test_of_another_stage_only_what_its_init_offers_is_imported(path: Path) -> None:
    folder = path.relative_to(ROOT).parts[1]
    for name in imports_of(path):
        parts = name.split(".")
        if parts[0] == "stages" and len(parts) > 1 and parts[1] != folder:
            assert len(parts) <= 3, f"{name} is the inside of another stage"
            assert not (ROOT.joinpath(*parts).with_suffix(".py")).exists(), f"{name} is the inside of another stage"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_ray_is_imported_where_execution_lies(path: Path) -> None:
    if "ray" in {name.split(".")[0] for name in imports_of(path)}:
        assert (
            path.name
            in {"ray_executor.py", "ray_environment.py", "actors.py", "metrics.py", "ray_train.py", "ray_serve.py"}
            or path.relative_to(ROOT).parts[0] == "trials"
        )


@pytest.mark.parametrize("path", sorted((ROOT / "jobs").glob("*.py")), ids=lambda path: path.name)
def test_no_job_shadows_another_module(path: Path) -> None:
    assert path.stem not in sys.stdlib_module_names
    assert path.stem == "__init__" or path.stem not in importlib.metadata.packages_distributions()


@pytest.mark.parametrize("path", sorted((ROOT / "jobs").glob("[a-z]*.py")), ids=lambda path: path.name)
def test_a_job_can_be_submitted_in_the_bare_form(path: Path) -> None:
    assert path.read_text().startswith("#!/usr/bin/env python\n")
    assert os.access(path, os.X_OK)


@pytest.mark.parametrize("path", sorted((ROOT / "jobs").glob("[a-z]*.py")), ids=lambda path: path.name)
def test_help_is_given_without_the_heavy_libraries(path: Path) -> None:
    heavy = ("torch", "faiss", "ray", "open_clip", "polars")
    code = f"import sys, runpy; runpy.run_path({str(path)!r}); print([m for m in {heavy!r} if m in sys.modules])"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    found = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_nobody_else_owns_our_names() -> None:
    owners = importlib.metadata.packages_distributions()
    for package in OURS:
        assert set(owners.get(package, [])) <= {"revilm-pipeline"}, f"another distribution holds {package!r}"
