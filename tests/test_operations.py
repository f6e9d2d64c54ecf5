"""docs/operations.md does what it says: every block of it is run, in order, on the demo's recipe made small."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.ports import free_ports

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "operations.md"
CODE = ("pipeline", "stages", "jobs", "demo")
BLOCK = re.compile(r"^```sh( fails)?\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The code alone, for the page changes it; and the recipe made small."""
    for folder in CODE:
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    path = tmp_path / "jobs" / "recipes" / "demo.yaml"
    recipe = yaml.safe_load(path.read_text())
    port = free_ports(1)[0]
    recipe["demo"] |= {"urls": 300, "port": port}
    recipe["download"] |= {"allow": [f"127.0.0.1:{port}", "127.0.0.1:1"], "deadline_s": 2}
    recipe |= {"engine": "local", "encoder": {"steps": 3, "batch": 50}, "index": {"min_recall": None}}
    recipe["ingest"]["shard_size"] = 50
    recipe["filter"] |= {"defaults": {"min_clip_score": 0.0}}
    path.write_text(yaml.safe_dump(recipe))
    return tmp_path


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_block_of_the_page_does_what_it_says(checkout: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(checkout), "RAY_AUTH_MODE": "disabled"}
    environment["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    page = PAGE.read_text(encoding="utf-8").replace("=0.35", "=0.05")  # an encoder of three steps gives low scores
    blocks = BLOCK.findall(page)
    assert len(blocks) > 12
    for fails, commands in (("", blocks[0][1]), *blocks):
        ended = subprocess.run(
            ["sh", "-ec", commands], cwd=checkout, env=environment, text=True, stdout=-1, stderr=-2, check=False
        )
        assert bool(ended.returncode) == bool(fails), f"{commands}\n{ended.stdout[-3000:]}"
