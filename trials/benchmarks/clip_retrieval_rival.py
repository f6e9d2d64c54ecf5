"""Embed a webdataset tar with clip-retrieval; run by the Python of an environment that holds it.

python clip_retrieval_rival.py TORCHVISION_GUARD MODEL WEIGHTS INTO TAR
"""

import sys
from importlib.util import module_from_spec, spec_from_file_location

BATCH = 64


def embed(guard: str, model: str, weights: str, into: str, tar: str) -> None:
    spec = spec_from_file_location("torchvision_guard", guard)
    assert spec is not None, "it is a Python file"
    assert spec.loader is not None, "it is a Python file"
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    module.make_torchvision_importable()
    from clip_retrieval.clip_inference.main import main  # type: ignore[import-not-found]

    main(
        input_dataset=tar,
        output_folder=into,
        input_format="webdataset",
        batch_size=BATCH,
        num_prepro_workers=1,
        enable_metadata=True,
        clip_model=f"open_clip:{model}/{weights}",
        use_jit=False,
        write_batch_size=100_000,
    )


if __name__ == "__main__":
    embed(*sys.argv[1:])
