"""open_clip can be imported beside a torch without CUDA, and a torchvision that works is left alone."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

GUARD = "from stages.embed.torchvision_guard import make_torchvision_importable as guard; guard(); guard();"


def run(code: str, **environment: str) -> str:
    found = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | environment, capture_output=True, text=True, check=True
    )
    return found.stdout.strip()


def test_open_clip_can_be_imported_in_a_fresh_process() -> None:
    assert run(GUARD + "import open_clip; print(open_clip.get_tokenizer('ViT-B-32')(['a dog']).shape)") == (
        "torch.Size([1, 77])"
    )


def test_where_the_operators_load_none_is_declared(tmp_path: Path) -> None:
    """The stand-in has any library that can be loaded for its operators."""
    package = tmp_path / "torchvision"
    package.mkdir()
    (package / "__init__.py").touch()
    (library,) = Path(sys.prefix).glob("lib/python3*/site-packages/torch/lib/libshm.so")
    shutil.copy(library, package / "_C.so")
    code = GUARD + "import torch; print(hasattr(torch.ops.torchvision, 'nms'))"
    assert run(code, PYTHONPATH=os.pathsep.join([str(tmp_path), str(Path.cwd())])) == "False"
    assert run(code) == "True"
