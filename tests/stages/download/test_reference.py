"""The engine `img2dataset` stores what that package's own command stores, in our layout and with our reasons."""

import io
import os
import subprocess
import sys
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pipeline.commits import Whole
from pipeline.executor import LocalExecutor
from pipeline.reasons import Reason
from pipeline.run import Run
from stages.download import Download, DownloadRecipe
from tests.stages.download.conftest import HostileServer
from tests.stages.download.test_images import photo, png, saved
from tests.stages.download.test_stage import Fixed

pytest.importorskip("img2dataset", reason="the extra img2dataset is not installed")

PICTURES = {
    "large": saved(photo(640, 480), "JPEG"),
    "gray": saved(photo(500, 333).convert("L"), "JPEG"),
    "small": saved(photo(100, 80), "PNG"),
    "alpha": saved(photo(300, 400).convert("RGBA"), "PNG"),
}


@pytest.fixture
def web(server: HostileServer, monkeypatch: pytest.MonkeyPatch) -> HostileServer:
    for name, body in PICTURES.items():
        monkeypatch.setattr(
            "tests.stages.download.conftest.HostileHandler.say_" + name,
            lambda self, body=body: self.answer(200, body),
            raising=False,
        )
    return server


def crawled(root: Path, urls: list[str], **recipe: Any) -> list[Mapping[str, Any]]:
    rows = [{"pair_id": f"r-{n:010d}", "source": "r", "caption": "c", "url": url} for n, url in enumerate(urls)]
    stages = [Fixed(rows), Download(DownloadRecipe(engine="img2dataset", deadline_s=3, retries=0, **recipe))]
    assert Run(str(root), stages).execute(LocalExecutor()).exit_code == 0
    found: list[Mapping[str, Any]] = Whole.open(str(root), "download").tables("pairs").to_pylist()
    assert [row["key"] for row in found] == [row["pair_id"] for row in rows]
    return found


def jpegs(folder: Path) -> list[bytes]:
    """In the order of the tars' names and of their keys."""
    found = []
    for path in sorted(folder.rglob("*.tar")):
        with tarfile.open(path) as tar:
            for name in sorted(name for name in tar.getnames() if name.endswith(".jpg")):
                member = tar.extractfile(name)
                assert member is not None
                found.append(member.read())
    return found


@pytest.mark.parametrize("trusted", [False, True])
def test_the_stored_jpegs_are_those_of_img2datasets_own_command(
    web: HostileServer, tmp_path: Path, *, trusted: bool
) -> None:
    urls = [web.url(f"/{name}") for name in PICTURES]
    (tmp_path / "list.txt").write_text("\n".join(urls))
    options = {"url_list": tmp_path / "list.txt", "output_folder": tmp_path / "theirs", "output_format": "webdataset"}
    options |= {"resize_mode": "keep_ratio", "resize_only_if_bigger": "True", "processes_count": 1, "thread_count": 2}
    command = [str(Path(sys.executable).with_name("img2dataset"))]
    command += [str(word) for name, value in options.items() for word in (f"--{name}", value)]
    subprocess.run(command, env=os.environ | {"NO_ALBUMENTATIONS_UPDATE": "1"}, check=True, capture_output=True)
    crawled(tmp_path / "ours", urls, trusted=trusted, allow=frozenset() if trusted else frozenset({web.endpoint}))
    assert jpegs(tmp_path / "ours") == jpegs(tmp_path / "theirs")
    assert len(jpegs(tmp_path / "ours")) == len(PICTURES)


def test_local_files_are_opened_for_a_trusted_list_alone(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(PICTURES["large"])
    urls = [f"file://{tmp_path}/a.jpg", "data:image/gif;base64,R0lGODlhAQABAAAAACw="]
    refused = crawled(tmp_path / "walled", urls)
    assert [row["reason"] for row in refused] == [Reason.BAD_URL, Reason.BAD_URL]
    opened = crawled(tmp_path / "open", urls, trusted=True)
    assert (opened[0]["reason"], opened[0]["width"]) == (None, 341)


@pytest.mark.parametrize("trusted", [False, True])
def test_every_row_ends_once_with_its_reason(web: HostileServer, tmp_path: Path, *, trusted: bool) -> None:
    expected = {
        web.url("/large"): None,
        web.url("/status?n=404"): Reason.HTTP_CLIENT_ERROR,
        web.url("/status?n=503"): Reason.HTTP_SERVER_ERROR,
        web.url("/ok"): Reason.NOT_AN_IMAGE,
        web.url("/loop"): Reason.TOO_MANY_REDIRECTS,
        web.url("/bytes?n=0"): Reason.EMPTY_BODY,
        web.url("/header?X-Robots-Tag=noai"): Reason.OPTED_OUT,
        "http://127.0.0.1:1/": Reason.CONNECTION,
        "no url": Reason.BAD_URL,
    }
    allow = frozenset({web.endpoint, "127.0.0.1:1"})
    found = crawled(tmp_path / "root", list(expected), trusted=trusted, allow=allow)
    assert {row["url"]: row["reason"] for row in found} == expected


def test_headers_are_checked_before_its_decoder_sees_a_picture() -> None:
    from stages.download.images import ImageRule, Refused
    from stages.download.reference import Maker

    refused = Maker(ImageRule()).make_checked(png(10_000, 10_000, 8, 2, b""))
    assert isinstance(refused, Refused)
    assert refused.reason is Reason.TOO_MANY_PIXELS


def test_gray_pictures_stay_gray_and_lie_as_in_the_file() -> None:
    from stages.download.images import ImageRule, Stored
    from stages.download.reference import Maker

    exif = Image.Exif()
    exif[0x0112] = 6
    stored = Maker(ImageRule()).make_checked(saved(photo(600, 400).convert("L"), "JPEG", exif=exif.tobytes()))
    assert isinstance(stored, Stored)
    assert (stored.width, stored.height) == (384, 256)
    with Image.open(io.BytesIO(stored.jpeg)) as image:
        assert image.mode == "L"
