"""A real S3 API on loopback: moto's server in a process of its own, so that Ray's workers reach it too."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError
from urllib.request import Request, urlopen

import pytest

from tests.ports import free_ports

SECRET = "nobody-may-ever-read-this-again"
ACCESS_KEY = "an-access-key-that-stays-inside"
START_S = 60


def environment(endpoint: str, cache: Path) -> dict[str, str]:
    """What a process needs to reach the server, and nothing of this machine's own settings for AWS and fsspec."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "FSSPEC_"))}
    return kept | {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
        "FSSPEC_CONFIG_DIR": os.devnull,
        "REVILM_CACHE": str(cache),
    }


@contextmanager
def s3_server() -> Iterator[str]:
    """Its url, until the block ends."""
    endpoint = f"http://127.0.0.1:{free_ports(1)[0]}"
    port = endpoint.rpartition(":")[2]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", port]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait_until_up(endpoint, process)
        yield endpoint
    finally:
        process.terminate()
        process.wait(30)


def make_bucket(endpoint: str, name: str) -> str:
    """→ its url."""
    with urlopen(Request(f"{endpoint}/{name}", method="PUT"), timeout=10):
        return f"s3://{name}"


@contextmanager
def reached_from_here(endpoint: str, cache: Path) -> Iterator[None]:
    """This process itself talks to the server."""
    import fsspec

    from pipeline import object_store

    clients = fsspec.get_filesystem_class("s3")
    clients.clear_instance_cache()  # a client keeps the endpoint and the keys that it found when it was made
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(("AWS_", "FSSPEC_"))]:
            patch.delenv(name)
        for name, value in environment(endpoint, cache).items():
            patch.setenv(name, value)
        patch.setattr("fsspec.config.conf", {})  # what it read of the home folder when it was imported
        patch.setattr(object_store, "CACHE_DIR", cache)
        yield
    clients.clear_instance_cache()


def _wait_until_up(endpoint: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        assert process.poll() is None, "moto's server ended"
        try:
            with urlopen(endpoint, timeout=2):
                return
        except (URLError, ConnectionError, TimeoutError):
            time.sleep(0.2)
    raise AssertionError(f"no S3 server at {endpoint} after {START_S} s")
