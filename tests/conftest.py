"""Fixtures that several packages' tests share."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """One embedded Ray for the whole session: it takes ten seconds to start."""
    from pipeline import ray_executor

    ray_executor.connect(2)
    yield
    import ray

    ray.shutdown()


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Real image-text data beside the checkout; tests that use it are skipped where it is missing."""
    folder = Path(os.environ.get("REVILM_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder} (set REVILM_DATA)")
    return folder
