"""The vectors that the index is measured with."""

from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import InputError
from trials.benchmarks.vectors import BLOCK, caption_vectors, captions_like, clip_like

ROWS, WIDTH = 4000, 512


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.concatenate(list(clip_like(ROWS, seed=1, width=WIDTH)))


def test_the_same_seed_gives_the_same_vectors(images: np.ndarray) -> None:
    assert np.array_equal(images, np.concatenate(list(clip_like(ROWS, seed=1, width=WIDTH))))
    assert not np.array_equal(images, np.concatenate(list(clip_like(ROWS, seed=2, width=WIDTH))))


def test_rows_come_in_blocks_that_fit_in_memory() -> None:
    blocks = list(clip_like(BLOCK + 3, seed=0, width=8))
    assert [block.shape for block in blocks] == [(BLOCK, 8), (3, 8)]


def test_images_have_norm_1_and_lie_in_a_cone(images: np.ndarray) -> None:
    wide = images.astype(np.float32)
    assert np.abs(np.linalg.norm(wide, axis=1) - 1).max() < 1e-3
    cosines = (wide[:500] @ wide[500:].T).ravel()
    assert cosines.mean() == pytest.approx(0.507, abs=0.02)
    assert cosines.std() == pytest.approx(0.11, abs=0.02)


def test_some_rows_are_exact_duplicates(images: np.ndarray) -> None:
    distinct = len(np.unique(images, axis=0))
    assert 1 - distinct / ROWS == pytest.approx(0.03, abs=0.01)


def test_a_caption_is_nearer_to_its_image_than_to_others_yet_apart_from_all(images: np.ndarray) -> None:
    captions = captions_like(images, seed=1).astype(np.float32)
    wide = images.astype(np.float32)
    assert np.abs(np.linalg.norm(captions, axis=1) - 1).max() < 1e-3
    assert (captions * wide).sum(axis=1).mean() == pytest.approx(0.3, abs=0.02)
    assert (captions[:500] @ wide[500:].T).mean() == pytest.approx(0.1, abs=0.02)
    assert (captions[:500] @ captions[500:].T).mean() == pytest.approx(0.507, abs=0.03)


def test_missing_captions_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="dataset_flickr8k"):
        caption_vectors(tmp_path, tmp_path / "cache")


def test_vectors_that_are_kept_need_neither_captions_nor_encoder(tmp_path: Path) -> None:
    kept = np.eye(3, 384, dtype=np.float16)
    np.save(tmp_path / "caption_vectors.npy", kept)
    assert np.array_equal(caption_vectors(tmp_path / "no data", tmp_path), kept)
