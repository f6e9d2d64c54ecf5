"""The index that autofaiss recommends is one that can be served, or the recipe is refused with a way out."""

import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.errors import RecipeError
from stages.index.autofaiss import PACKAGES, ask_autofaiss, first_served

GIB = 2**30


def test_the_first_key_that_can_be_served_is_taken() -> None:
    assert first_served(["HNSW32", "IVF4096,PQ33", "IVF4096_HNSW32,PQ64", "IVF16,PQ8"], 512) == "IVF4096_HNSW32,PQ64"


def test_where_none_can_be_served_the_keys_and_the_reason_are_told() -> None:
    with pytest.raises(
        RecipeError, match=r"it proposes HNSW15, Flat; .*IndexHNSWFlat is no inverted file.*or set auto"
    ):
        first_served(["HNSW15", "HNSW15", "Flat"], 512)


@pytest.fixture(scope="module")
def package_index(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Skips where pip has no autofaiss to install."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--retries", "1"]
    folder = tmp_path_factory.mktemp("wheel")
    answer = subprocess.run([*command, "--dest", str(folder), PACKAGES[0]], capture_output=True, text=True)
    if answer.returncode:
        pytest.skip(f"pip cannot get {PACKAGES[0]}: {answer.stderr.strip().splitlines()[-1]}")


@pytest.mark.slow
def test_autofaiss_is_asked_in_an_environment_of_its_own(package_index: None, ray_cluster: None) -> None:
    assert ask_autofaiss(119_000_000, 512, 10 * GIB) == "OPQ64_448,IVF65536_HNSW32,PQ64x8"
    assert ask_autofaiss(200_000, 512, GIB) == "IVF2048,Flat"
    assert ask_autofaiss(500, 512, GIB) == "IVF1,Flat"
    with pytest.raises(RecipeError, match=r"15,000,000 vectors 512 wide fits .* 0.0488 GiB. Raise index.memory_gib"):
        ask_autofaiss(15_000_000, 512, 50 * 2**20)


@pytest.mark.slow
def test_what_autofaiss_raises_is_told_in_one_line(package_index: None, ray_cluster: None) -> None:
    with pytest.raises(RecipeError, match=r"^.*failed in .*autofaiss==2.18.0.*Unknown format.*-1B.*to auto or to a.*$"):
        ask_autofaiss(200_000, 512, -1)


@pytest.mark.slow
def test_where_no_ray_runs_one_is_started_for_the_question_alone(package_index: None) -> None:
    code = f"""
import ray
from stages.index.autofaiss import ask_autofaiss
print(ask_autofaiss(200_000, 512, {GIB}), ray.is_initialized())
"""
    folder = Path(__file__).parents[3]
    answer = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True)
    assert answer.stdout.splitlines()[-1] == "IVF2048,Flat False"
