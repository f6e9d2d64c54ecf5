"""What a download recipe may say, and what of it makes another run."""

from importlib.util import find_spec
from typing import Any

import pytest
from pydantic import ValidationError

from stages.download import Download, DownloadRecipe


def test_what_changes_no_byte_leaves_the_fingerprint_as_it_was() -> None:
    plain = {"size_px": 256, "jpeg_quality": 95, "max_pixels": 50_000_000}
    assert Download(DownloadRecipe()).settings() == plain
    assert Download(DownloadRecipe(quality="exact", engine="native", ca_file="some.pem")).settings() == plain
    assert Download(DownloadRecipe(quality="fast")).settings() == plain | {"quality": "fast"}


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"trusted": True}, "trusted is for engine img2dataset"),
        ({"engine": "img2dataset", "trusted": True, "opt_out": ["example.org"]}, "leave trusted out"),
        ({"engine": "img2dataset", "quality": "fast"}, "quality fast is for engine native"),
        ({"engine": "img2dataset", "trusted": True, "opt_out": ["example.org"]}, "opt_out is not heeded"),
    ],
)
def test_what_an_engine_does_not_do_is_refused(given: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        DownloadRecipe.model_validate(given)


@pytest.mark.skipif(find_spec("img2dataset") is not None, reason="img2dataset is installed here")
def test_an_engine_that_is_not_installed_is_refused_with_the_command() -> None:
    with pytest.raises(ValidationError, match=r"pip install -e '\.\[img2dataset\]'"):
        DownloadRecipe(engine="img2dataset")
