"""Stored pictures by their place in a tar: read one without the tar's index, write one and know its place."""

import io
import tarfile
from typing import BinaryIO

from pipeline.errors import InputError


def read_picture(file: BinaryIO, offset: int, size: int) -> bytes:
    """The bytes of a member, as PAIRS names them. Raises InputError where the file ends before."""
    file.seek(offset)
    data = file.read(size)
    if len(data) != size:
        raise InputError(f"a picture of {size} bytes at {offset} should be there, but the tar ends after {len(data)}")
    return data


def add_member(tar: tarfile.TarFile, name: str, data: bytes) -> int:
    """→ offset of the data in the tar. No times and owners: the same pictures make the same tar."""
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))
    return tar.offset - -(-len(data) // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
