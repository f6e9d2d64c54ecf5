"""Fetching and storing photo-like pictures from one server on loopback, beside img2dataset's command."""

import os
import shutil
import statistics
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import module_from_spec, spec_from_file_location
from io import BytesIO
from itertools import count
from pathlib import Path
from typing import Any, Literal

import certifi
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.commits import Whole, resolve_folder
from stages.embed import OWN
from trials.benchmarks.authority import make_authority
from trials.benchmarks.crawl_rival import Crawl, NoRival, img2dataset, ours, pictures, rival_python
from trials.benchmarks.photo_web import SIZES, make_photos, served

DATA = Path(os.environ.get("REVILM_DATA", "../shared/data"))
PHOTOS, PHOTOS_OVER_TLS, COMPARED = 4000, 1000, 200
TURNS = 3
DEMO = "runs/demo"
QUALITIES: tuple[Literal["exact", "fast"], ...] = ("exact", "fast")
Line = tuple[str, str]
Features = Callable[[Sequence[Image.Image]], NDArray[Any]]
Contender = Callable[[Sequence[str], Path], Crawl]


def download(photos: int = PHOTOS, photos_over_tls: int = PHOTOS_OVER_TLS, turns: int = TURNS) -> Iterator[Line]:
    """Good pictures a CPU second, the CPU of a run over one url taken off, in turns; then what was stored."""
    try:
        python = rival_python()
    except NoRival as fault:
        yield "beside img2dataset", f"not run: {fault}"
        return
    with tempfile.TemporaryDirectory(dir=".") as made:
        folder = Path(made)
        make_photos(folder / "photos", photos)
        with served(folder / "photos") as base:
            http = Race(_contenders(python, base, {}, {}), _urls(base, photos), turns, folder / "http")
            yield from http.lines("http")
            yield from _quality(http, folder / "photos")
        authority = make_authority(folder / "authority", certifi.where())
        with served(folder / "photos", authority.certificate, authority.key) as base:
            trust = str(authority.bundle)
            contenders = _contenders(python, base, {"ca_file": trust}, {"SSL_CERT_FILE": trust})
            del contenders["fast"]
            https = Race(contenders, _urls(base, photos_over_tls), turns, folder / "https")
            yield from https.lines("https, a new connection for each")
    yield from _embedding()


def _contenders(
    python: Path, base: str, recipe: Mapping[str, object], environment: Mapping[str, str]
) -> dict[str, Contender]:
    endpoint = base.partition("//")[2]
    told = {"allow": [endpoint], "connections_per_host": 32, **recipe}
    return {
        "exact": partial(ours, recipe=told),
        "fast": partial(ours, recipe=told | {"quality": "fast"}),
        "img2dataset": partial(img2dataset, python, options={}, environment=environment),
    }


def _urls(base: str, photos: int) -> list[str]:
    return [f"{base}/{number}.jpg" for number in range(photos)]


@dataclass
class Race:
    """Each contender over all urls, one after the other, and again. Their last outputs stay, by name, in `folder`."""

    contenders: Mapping[str, Contender]
    urls: Sequence[str]
    turns: int
    folder: Path

    def __post_init__(self) -> None:
        self.empty_s = {name: self._empty_s(run) for name, run in self.contenders.items()}
        self.crawls: dict[str, list[Crawl]] = {name: [] for name in self.contenders}
        for _ in range(self.turns):
            for name, run in self.contenders.items():
                shutil.rmtree(self.folder / name, ignore_errors=True)
                self.crawls[name].append(run(self.urls, self.folder / name))

    def _empty_s(self, run: Contender) -> float:
        """CPU seconds of a run over one url: the less of two, the first may have compiled its modules."""
        return min(run(self.urls[:1], Path(tempfile.mkdtemp(dir=self._made()), "run")).cpu_s for _ in range(2))

    def _made(self) -> Path:
        self.folder.mkdir(parents=True, exist_ok=True)
        return self.folder

    def rates(self, name: str) -> list[float]:
        return [crawl.good / (crawl.cpu_s - self.empty_s[name]) for crawl in self.crawls[name]]

    def lines(self, how: str) -> Iterator[Line]:
        for name, crawls in self.crawls.items():
            lost, peak = (
                (len(self.urls) - min(crawl.good for crawl in crawls)),
                max(crawl.peak_bytes for crawl in crawls),
            )
            yield (
                f"{how}: {name}",
                f"{_spread(self.rates(name))} good pictures a CPU second; {lost} failed;"
                f" {peak / 2**20:,.0f} MiB at most; {self.empty_s[name]:.1f} s CPU over one url",
            )
        for name, target in (("exact", 4.0 if how.startswith("https") else 1.2), ("fast", 2.0)):
            if name in self.crawls:
                ratios = [a / b for a, b in zip(self.rates(name), self.rates("img2dataset"), strict=True)]
                yield f"{how}: {name} to img2dataset", f"{_spread(ratios, '{:.2f}')} (target ≥ {target})"


def _spread(values: Sequence[float], form: str = "{:.0f}") -> str:
    middle, low, high = map(form.format, (statistics.median(values), min(values), max(values)))
    return f"{middle} ({low} to {high})"


def _quality(race: Race, photos: Path) -> Iterator[Line]:
    """Mean PSNR of what was stored against the float64 triangle filter on the decoded picture."""
    numbers = range(0, len(race.urls), max(1, len(race.urls) // COMPARED))
    references = {race.urls[n]: triangle(_decoded((photos / f"{n}.jpg").read_bytes()), 256) for n in numbers}
    decibels = {}
    for name in race.contenders:
        stored = pictures(race.folder / name)
        decibels[name] = statistics.mean(psnr(_decoded(stored[url]), pixels) for url, pixels in references.items())
        yield f"mean PSNR of {len(references)}, against the float64 triangle filter: {name}", f"{decibels[name]:.2f} dB"
    for name, target in (("exact", "≥ 0"), ("fast", "≥ -1.7")):
        yield f"{name} less img2dataset", f"{decibels[name] - decibels['img2dataset']:+.2f} dB (target {target})"


def triangle(pixels: NDArray[np.float64], short_px: int) -> NDArray[np.float64]:
    """(H, W, 3) → (h, w, 3), the short side `short_px`: the antialiased triangle filter as the books have it."""
    height, width = pixels.shape[:2]
    short = min(height, width)
    down, across = ((side * short_px + short // 2) // short for side in (height, width))
    return np.asarray(
        np.einsum("hH,HWc,wW->hwc", _weights(height, down), pixels, _weights(width, across), optimize=True)
    )


def _weights(length: int, stored: int) -> NDArray[np.float64]:
    scale = length / stored
    centres = (np.arange(stored)[:, None] + 0.5) * scale
    weights = np.maximum(0, 1 - np.abs(np.arange(length)[None] + 0.5 - centres) / scale)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


def psnr(found: NDArray[np.float64], expected: NDArray[np.float64]) -> float:
    return float(10 * np.log10(255**2 / np.mean((found - expected) ** 2)))


def _decoded(jpeg: bytes) -> NDArray[np.float64]:
    return np.asarray(Image.open(BytesIO(jpeg)).convert("RGB"), dtype=np.float64)


def _embedding() -> Iterator[Line]:
    """Cosine of a picture as stored fast and exact. No weights of CLIP are at hand: an encoder of the demo, which was
    trained as CLIP was, on its own drawn scenes at the size of web pictures; and a MobileNet's features of real photos
    (short side 250 to 333 px), shrunk as far as web pictures are."""
    what = "embedding cosine of fast and exact, the demo's encoder, drawn scenes of 0.5 Mpx to 256 px"
    if resolve_folder(DEMO, OWN).manifest():
        yield what, _told(_cosines(_scenes(200), 256, _demo_features()))
    else:
        yield what, f"not run: no encoder in {DEMO} (make demo)"
    what = "embedding cosine of fast and exact, MobileNetV2, real photos to 112 px"
    tool, weights = DATA.parent / "tools" / "mobilenet_features.py", DATA / "weights" / "mobilenet_v2_nsfwjs"
    if tool.is_file() and weights.is_dir():
        net = _loaded(tool).MobileNet(weights)
        yield (
            what,
            _told(_cosines(list(_real_photos(224, 300)), 112, lambda images: net(net.prepare(images))[0].numpy())),
        )
    else:
        yield what, f"not run: no {tool} or {weights} (REVILM_DATA)"


def _told(cosines: NDArray[np.float64]) -> str:
    low, least = np.quantile(cosines, 0.05), cosines.min()
    return f"mean {cosines.mean():.4f} (target ≥ 0.995), 5th percentile {low:.4f}, least {least:.4f}"


def _cosines(bodies: Sequence[bytes], size_px: int, features_of: Features) -> NDArray[np.float64]:
    from stages.download.images import ImageRule, Stored, store

    features = []
    for quality in QUALITIES:
        stored = [store(body, ImageRule(size_px=size_px, quality=quality)) for body in bodies]
        images = [Image.open(BytesIO(each.jpeg)) for each in stored if isinstance(each, Stored)]
        rows = np.concatenate([features_of(images[at : at + 50]) for at in range(0, len(images), 50)])
        features.append(rows / np.linalg.norm(rows, axis=1, keepdims=True))
    return np.asarray((features[0] * features[1]).sum(axis=1))


def _demo_features() -> Features:
    import torch

    from stages.embed import EmbedRecipe, open_towers

    towers = open_towers(EmbedRecipe(model=OWN, device="cpu"), Whole.open(DEMO, OWN))
    fit = towers.fitter()
    return lambda images: towers.encode_images(torch.from_numpy(np.stack([np.asarray(fit(image)) for image in images])))


def _scenes(wanted: int) -> list[bytes]:
    from random import Random

    from demo.scenes import random_scene, render

    random, found = Random(5), []
    for number in range(wanted):
        width, height = SIZES[number % len(SIZES)]
        written = BytesIO()
        render(random_scene(random), width_px=width, height_px=height).save(written, "JPEG", quality=80 + number % 13)
        found.append(written.getvalue())
    return found


def _loaded(path: Path) -> Any:
    spec = spec_from_file_location(path.stem, path)
    assert spec is not None, "it is a Python file"
    assert spec.loader is not None, "it is a Python file"
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _real_photos(least_px: int, wanted: int) -> Iterator[bytes]:
    import tarfile

    found = count()
    for path in sorted(DATA.glob("vi_captions/*.tar")):
        with tarfile.open(path) as tar:
            for member in tar:
                body = tar.extractfile(member) if member.name.endswith(".jpg") else None
                if body and min(Image.open(BytesIO(data := body.read())).size) >= least_px:
                    if next(found) == wanted:
                        return
                    yield data
