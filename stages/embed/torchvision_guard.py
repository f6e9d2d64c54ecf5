"""Makes `import torchvision` (and so open_clip) possible beside a torch without CUDA.

torchvision 0.28 from the package index is built against CUDA, and is installed beside a CPU torch too. Its compiled
operators do not load there, which it tolerates, except that it describes two of them all the same: "operator
torchvision::nms does not exist". Declaring the two is enough; where the operators do load, nothing is changed.
"""

from functools import cache
from importlib.util import find_spec
from pathlib import Path

_SIGNATURE = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_declared: list[object] = []  # a declaration lasts as long as its library object


@cache
def make_torchvision_importable() -> None:
    """Call before the first import of torchvision, open_clip or timm in a process."""
    import torch

    spec = find_spec("torchvision")
    assert spec is not None, "torchvision is a dependency"
    assert spec.origin is not None, "torchvision is a package"
    (operators,) = Path(spec.origin).parent.glob("_C*.so")
    try:
        torch.ops.load_library(str(operators))  # type: ignore[no-untyped-call]
    except OSError:
        library = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
        for name in ("nms", "qnms"):
            library.define(f"{name}{_SIGNATURE}")  # type: ignore[no-untyped-call]
        _declared.append(library)
