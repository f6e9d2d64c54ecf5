"""The embed stage and clip-retrieval's inference on the same tars with the same weights, each a process of one thread.

python -m trials.benchmarks.embed_rival ROOT MODEL WEIGHTS    ours, in a root whose download is there
"""

import os
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from pipeline.commits import Committed, StageFolder
from pipeline.executor import LocalExecutor
from pipeline.run import Run
from pipeline.stage import shard_id
from trials.benchmarks.crawl_rival import used
from trials.benchmarks.photos import Photos

PAIRS, FEW, TURNS = 320, 64, 2
MODEL = "ViT-B-32"
HERE = Path(__file__).parent
Embedding = Callable[[Path, Path], float]  # root of a download, weights → CPU seconds


def beside_clip_retrieval() -> Iterator[tuple[str, str]]:
    """CPU seconds a pair: those of a run over many pairs less those over few, which opens the model as well."""
    what = f"{MODEL}, fp32, one thread: pairs a CPU second"
    python = os.environ.get("REVILM_CLIP_RETRIEVAL")
    if not python:
        yield what, "not run: REVILM_CLIP_RETRIEVAL names the Python of an environment with clip-retrieval==2.45.0"
        return
    with tempfile.TemporaryDirectory(dir=".") as made:
        folder = Path(made).absolute()
        weights = _weights(folder / "weights.safetensors")
        roots = {pairs: _downloaded(folder / str(pairs), pairs) for pairs in (FEW, PAIRS)}
        contenders: dict[str, Embedding] = {"ours": _ours, "clip-retrieval": _theirs(python)}
        rates: dict[str, list[float]] = {name: [] for name in contenders}
        for _ in range(TURNS):
            for name, embed in contenders.items():
                few_s, all_s = (embed(roots[pairs], weights) for pairs in (FEW, PAIRS))
                rates[name].append((PAIRS - FEW) / (all_s - few_s))
    for name, found in rates.items():
        yield f"{what}: {name}", _spread(found)
    ratios = [ours / theirs for ours, theirs in zip(rates["ours"], rates["clip-retrieval"], strict=True)]
    yield "the embed stage to clip-retrieval's inference", f"{_spread(ratios, '{:.2f}')} (target ≥ 2)"


def _ours(root: Path, weights: Path) -> float:
    command = [sys.executable, "-m", __name__, str(root), MODEL, str(weights)]
    return used(command, {})["cpu_s"]


def _theirs(python: str) -> Embedding:
    def embed(root: Path, weights: Path) -> float:
        (tar,) = root.glob("download/data/*.tar")
        into = tempfile.mkdtemp(dir=root)
        guard = HERE.parents[1] / "stages" / "embed" / "torchvision_guard.py"
        command = [python, str(HERE / "clip_retrieval_rival.py"), str(guard), MODEL, str(weights), into, str(tar)]
        return used(command, {"PYTHONPATH": ""})["cpu_s"]

    return embed


def _downloaded(root: Path, pairs: int) -> Path:
    assert Run(str(root), [Photos(pairs)]).execute(LocalExecutor()).exit_code == 0
    assert Committed(StageFolder(str(root), Photos.name), StageFolder(str(root), Photos.name).record(shard_id(0)))
    return root


def _weights(path: Path) -> Path:
    """Random ones, for none are at hand: they cost what trained ones do."""
    from safetensors.torch import save_file

    from stages.embed.towers import Towers

    save_file(dict(Towers.load(MODEL, None, "fp32", "cpu").model.state_dict()), str(path))
    return path


def _spread(values: list[float], form: str = "{:.1f}") -> str:
    return "{} ({} to {})".format(*map(form.format, (statistics.median(values), min(values), max(values))))


def _run_ours(root: str, model: str, weights: str) -> int:
    from stages.embed import Embed, EmbedRecipe

    recipe = EmbedRecipe(model=model, pretrained=weights, device="cpu", cpus=1, decode_threads=1)
    place = Path(tempfile.mkdtemp(dir=root))  # a root of its own that takes the download as it is
    (place / "download").symlink_to(Path(root, "download"))
    return Run(str(place), [Photos(_pairs(root)), Embed(recipe)]).execute(LocalExecutor()).exit_code


def _pairs(root: str) -> int:
    return StageFolder(root, Photos.name).record(shard_id(0)).rows_out


if __name__ == "__main__":
    sys.exit(_run_ours(*sys.argv[1:]))
