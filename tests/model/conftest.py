"""What all tests of the model share."""

from typing import Any

import pytest

from stages.embed.torchvision_guard import make_torchvision_importable
from tests.threads import one_thread as one_thread


@pytest.fixture(scope="session")
def transformers() -> Any:
    """What our language models and tokenizers are compared with. It imports torchvision."""
    make_torchvision_importable()
    import transformers

    return transformers
