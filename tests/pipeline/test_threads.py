"""A stage's number of threads holds for every numeric library, whether it is loaded before or after."""

import subprocess
import sys
from pathlib import Path

import pytest

SET = "from pipeline.threads import set_threads; set_threads(1); set_threads({threads})"
LOAD = "import numpy, torch, faiss"
TELL = """
from threadpoolctl import threadpool_info
told = {library["num_threads"] for library in threadpool_info()}
print(told | {torch.get_num_threads(), faiss.omp_get_max_threads()})
"""


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("first", ["loaded", "set"])
def test_the_number_holds_for_every_library(first: str, threads: int) -> None:
    lines = [LOAD, SET.format(threads=threads)]
    code = "\n".join([*(lines if first == "loaded" else lines[::-1]), TELL])
    root = Path(__file__).parents[2]
    found = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == str({threads})
