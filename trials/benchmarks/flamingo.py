"""Resampler and gated layers beside open_flamingo's: one step of training, the same weights, captions and loss.

Its layers are loaded from a folder of their own, into the same process and the same torch. They take rows padded to the
longest, of equally many pictures each; ours take those too, and packed rows.
"""

import importlib.util
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

Line = tuple[str, str]
HOME = Path("runs/benchmark-model/open_flamingo")
PACKAGES = ("open_flamingo==2.0.1", "einops==0.8.2", "einops_exts==0.0.4")


@dataclass(frozen=True)
class Sizes:
    preset: str = "base"
    samples: Sequence[tuple[int, int]] = ((32, 1), (6, 5))  # so many of so many pictures each
    repetitions: int = 3


def flamingo(sizes: Sizes = Sizes()) -> Iterator[Line]:
    """On one thread, in CPU seconds: forward and backward of the layers alone, over given text and patch tokens."""
    from trials.benchmarks.flamingo_layers import compared, shape_of
    from trials.benchmarks.model_samples import Captions

    try:
        layers = installed(HOME)
    except subprocess.CalledProcessError as error:
        yield "not measured", f"{' '.join(PACKAGES)}: {error.stderr.strip().splitlines()[-1][:200]}"
        return
    captions, config = Captions.read(), shape_of(sizes.preset)
    yield "captions", captions.told
    for count, pictures in sizes.samples:
        segments = captions.segments(config, count, "patch tokens", pictures=pictures)
        yield from compared(layers, config, segments, sizes.repetitions)


def installed(home: Path) -> ModuleType:
    """The module of open_flamingo's layers, from a folder that is filled once. Without what the whole package asks for:
    its layers need torch and einops alone. Raises subprocess.CalledProcessError."""
    if not home.exists():
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(home), *PACKAGES]
        subprocess.run(command, check=True, capture_output=True, text=True)
    spec = importlib.util.spec_from_file_location("open_flamingo_layers", home / "open_flamingo" / "src" / "helpers.py")
    assert spec is not None
    assert spec.loader is not None
    layers = importlib.util.module_from_spec(spec)
    sys.path.append(str(home))
    try:
        spec.loader.exec_module(layers)
    finally:
        sys.path.remove(str(home))
    return layers
