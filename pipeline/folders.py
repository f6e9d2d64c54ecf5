"""Folders of files that a person names."""

from pathlib import Path


def files_below(folder: Path) -> list[Path]:
    """At any depth, by name; hidden ones are left out."""
    files = (file for file in folder.rglob("*") if file.is_file())
    return sorted(file for file in files if not any(part.startswith(".") for part in file.relative_to(folder).parts))
