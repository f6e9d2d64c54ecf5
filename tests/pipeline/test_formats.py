"""What the docs say of the files is what the code writes."""

from pathlib import Path

from pipeline.formats import markdown


def test_the_printed_formats_are_current() -> None:
    printed = (Path(__file__).parents[2] / "docs" / "formats.md").read_text(encoding="utf-8")
    assert printed == markdown(), "run: python -m pipeline.formats > docs/formats.md"
