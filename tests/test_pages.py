"""The pages with commands do what they say: every block is run, in order, on the demo's recipe made small, and says
what the page shows."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from pipeline.errors import PipelineError
from tests.ports import free_ports

ROOT = Path(__file__).parents[1]
MAKE_DEMO = "python jobs/build_index.py jobs/recipes/demo.yaml"
CODE = ("pipeline", "stages", "jobs", "demo")
BLOCK = re.compile(r"^```(sh|sh fails|text)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
BLOCK_S = 240  # one that takes longer hangs
FAILURES = {kind.exit_code for kind in PipelineError.__subclasses__()}


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
    path = path.with_name("second_pass.yaml")
    again = yaml.safe_load(path.read_text()) | {name: recipe[name] for name in ("demo", "engine", "encoder", "index")}
    again |= {"download": again["download"] | recipe["download"], "filter": again["filter"] | recipe["filter"]}
    again["ingest"]["shard_size"] = 50
    path.write_text(yaml.safe_dump(again))
    for name in ("neighbors", "update", "interleave"):
        path = path.with_name(f"{name}.yaml")
        recipe = yaml.safe_load(path.read_text()) | {"engine": "local"}
        recipe |= {"index": {"min_recall": None}} if name == "update" else {}
        recipe |= {"interleave": {"max_starved": 1}} if name == "interleave" else {}
        path.write_text(yaml.safe_dump(recipe))
    return tmp_path


def run(commands: str, checkout: Path) -> "subprocess.CompletedProcess[str]":
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    environment |= {"PYTHONPATH": str(checkout), "RAY_AUTH_MODE": "disabled"}
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    return subprocess.run(
        ["timeout", "--kill-after=5", str(BLOCK_S), "sh", "-ec", commands],
        cwd=checkout,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )


def shown_in(said: str, shown: str) -> bool:
    """Whether that stands in what was said. … is anything, and how lines are broken does not count."""
    parts = (re.escape(" ".join(part.split())) for part in shown.split("…"))
    return re.search(r".*?".join(parts), " ".join(said.split())) is not None


@pytest.mark.parametrize(
    ("shown", "told"),
    [
        ("a b\nc", True),
        ("embed … .tar\nis gone", True),
        ("shard 00001.tar is", True),
        ("… is gone", True),
        ("a c", False),
        ("shard … embed", False),
        ("00001-tar", False),
    ],
)
def test_what_a_page_shows_is_compared_as_a_reader_would(shown: str, told: bool) -> None:
    assert shown_in("a b  c\nembed: shard 00001.tar\n is gone\n", shown) is told


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("page", "at_least"), [("operations.md", 12), ("retrieval.md", 3), ("interleaved.md", 1)])
def test_every_block_of_a_page_does_what_it_says(page: str, at_least: int, checkout: Path) -> None:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    blocks = BLOCK.findall(text.replace("=0.35", "=0.05"))  # an encoder of three steps gives low scores
    assert len(blocks) >= at_least
    said, wrong = "", []
    assert run(MAKE_DEMO, checkout).returncode == 0
    for kind, text in blocks:
        if kind == "text":
            wrong += [] if shown_in(said, text) else [f"{text}\nis not what was said:\n{said[-3000:]}"]
            continue
        ended = run(text, checkout)
        said = ended.stdout
        allowed = FAILURES if kind == "sh fails" else {0}
        assert ended.returncode in allowed, f"{text}\nended with {ended.returncode}:\n{said[-3000:]}"
    assert not wrong, "\n\n".join(wrong)
