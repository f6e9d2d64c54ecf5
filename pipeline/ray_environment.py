"""A function of packages that cannot live beside ours, called once in a Ray runtime environment that has them.

The environment is a virtual one in the cache folder, made once on the machine of the driver: this Python, this Ray and
the packages. (Ray's own `pip` would copy the whole environment that Ray runs in, torch and all, in every session.)
"""

import hashlib
import importlib
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import ray
from ray import exceptions
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from pipeline.credentials import redact
from pipeline.disk import alone
from pipeline.errors import RecipeError
from pipeline.object_store import CACHE_DIR
from pipeline.ray_executor import running_ray

ENVIRONMENTS = CACHE_DIR / "environments"
LAST_LINES, LINE_CHARS = 2, 300  # of what pip said


def call_with_packages(function: str, arguments: Mapping[str, Any], packages: Sequence[str], *, instead: str) -> Any:
    """→ what `function` (package.module:name) returns; it has to be plain, as the libraries there are other versions.

    packages: as pip takes them. instead: for the error, what to write in the recipe so that they are not needed.
    Joins the Ray that runs, or starts one for the call. Raises RecipeError where the environment cannot be made or the
    function raises.
    """
    try:
        python = python_with([f"ray=={ray.__version__}", *packages])
        _run(python, "-c", "import ray")  # Ray would wait for ever for a worker that cannot start
    except subprocess.CalledProcessError as error:
        raise RecipeError(
            f"no environment with {', '.join(packages)} can be made: {_last_lines(error.stdout)}. pip needs a package "
            f"index and room in {ENVIRONMENTS}. Or {instead}."
        ) from None
    with running_ray(cpus=1):
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        # No CPU: shards in flight may hold them all.
        options = {"num_cpus": 0, "runtime_env": {"py_executable": str(python)}, "scheduling_strategy": here}
        try:
            return ray.get(ray.remote(**options)(_caller(function, arguments)).remote())
        except exceptions.RayTaskError as error:
            where = f"{function} failed in an environment with {', '.join(packages)}"
            raise RecipeError(f"{where}: {error.cause!r}. Change what it is given, or {instead}.") from None


def python_with(packages: Sequence[str]) -> Path:
    """The interpreter of an environment with these packages, made where it is missing. Raises CalledProcessError."""
    made = ENVIRONMENTS / hashlib.sha256(repr((sys.base_prefix, sys.version, *packages)).encode()).hexdigest()[:16]
    if not made.exists():
        ENVIRONMENTS.mkdir(parents=True, exist_ok=True)
        with alone(made.with_suffix(".lock")):
            if not made.exists():
                _make_environment(made, packages)
    return made / "bin" / "python"


def _make_environment(made: Path, packages: Sequence[str]) -> None:
    with TemporaryDirectory(dir=ENVIRONMENTS) as folder:
        new = Path(folder) / "new"
        _run(sys.executable, "-m", "venv", new)
        _run(new / "bin" / "python", "-m", "pip", "install", "--quiet", *packages)
        new.rename(made)


def _run(*command: str | Path) -> None:
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    subprocess.run(command, env=variables, check=True, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def _caller(function: str, arguments: Mapping[str, Any]) -> Callable[[], Any]:
    """An inner function, whose code Ray sends: a module's it would have imported there, and all of ours with it."""

    def call() -> Any:
        module, name = function.split(":")
        return getattr(importlib.import_module(module), name)(**arguments)

    return call


def _last_lines(said: str) -> str:
    lines = [line.strip() for line in redact(said).splitlines() if line.strip()]
    return " ".join(textwrap.shorten(line, LINE_CHARS, placeholder=" …") for line in lines[-LAST_LINES:])
