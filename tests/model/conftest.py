"""What all tests of the model share."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from stages.embed.torchvision_guard import make_torchvision_importable


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Matrices as small as theirs take several times longer when two threads share them."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def transformers() -> Any:
    """What our language models and tokenizers are compared with. It imports torchvision."""
    make_torchvision_importable()
    import transformers

    return transformers
