"""Photo-like pictures and a web server that gives them, in a process of its own.

python -m trials.benchmarks.photo_web FOLDER [CERTIFICATE KEY]    serves FOLDER on loopback, prints its port first

With a certificate it speaks https, every request on a connection of its own and no session taken up again, as from as
many hosts as there are urls.
"""

import asyncio
import ssl
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

SIZES = ((818, 614), (614, 818), (867, 579), (708, 709), (945, 531))  # px: about half a million pixels each
TEXTURE_PX = 1400  # side of the textures that pictures are cut from
TEXTURES = 12


def make_photos(folder: Path, count: int, *, processes: int = 2) -> None:
    """`count` JPEGs, 0.jpg and on: two textures with a photo's spectrum laid over each other, a gradient, some lines;
    quality 80 to 92, about 136 KB each. The same on every machine with the same numpy and Pillow."""
    folder.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(processes) as pool:
        shares = [range(start, count, processes) for start in range(processes)]
        list(pool.map(partial(_make, folder), shares))


def _make(folder: Path, numbers: range) -> None:
    textures = [_texture(seed) for seed in range(TEXTURES)]
    for number in numbers:
        _photo(number, textures).save(folder / f"{number}.jpg", "JPEG", quality=80 + number % 13)


def _texture(seed: int) -> NDArray[np.float32]:
    """(3, TEXTURE_PX, TEXTURE_PX), mean 0 and deviation 1; amplitudes fall with frequency as in photos."""
    noise = np.random.default_rng(seed).standard_normal((4, TEXTURE_PX, TEXTURE_PX))
    frequency = np.hypot(np.fft.fftfreq(TEXTURE_PX)[:, None], np.fft.rfftfreq(TEXTURE_PX)[None])
    frequency[0, 0] = 1
    waves = np.fft.irfft2(np.fft.rfft2(noise) / frequency**1.24, s=noise.shape[1:])
    waves /= waves.std(axis=(1, 2), keepdims=True)
    return (0.9 * waves[:1] + 0.44 * waves[1:]).astype(np.float32)  # bright and dark more than colours


def _photo(number: int, textures: list[NDArray[np.float32]]) -> Image.Image:
    draw = np.random.default_rng([1, number])
    width, height = SIZES[number % len(SIZES)]
    first, second = draw.choice(len(textures), 2, replace=False)
    y, x = np.mgrid[:height, :width].astype(np.float32)
    slope = (draw.uniform(-40, 40) * x / width + draw.uniform(-40, 40) * y / height)[None]
    layers = 30 * _cut(textures[first], height, width, draw) + 20 * _cut(textures[second], height, width, draw)
    pixels = np.clip(draw.uniform(90, 150) + slope + layers, 0, 255).astype(np.uint8)
    image = Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0)))
    pen = ImageDraw.Draw(image)
    for _ in range(draw.integers(4, 16)):
        ends = [tuple(map(int, draw.integers(0, (width, height)))) for _ in range(2)]
        pen.line(ends, fill=tuple(map(int, draw.integers(0, 256, 3))), width=int(draw.integers(1, 6)))
    return image


def _cut(texture: NDArray[np.float32], height: int, width: int, draw: np.random.Generator) -> NDArray[np.float32]:
    top, left = draw.integers(0, TEXTURE_PX - height), draw.integers(0, TEXTURE_PX - width)
    return texture[:, top : top + height, left : left + width]


@contextmanager
def served(folder: Path, *certificate: Path) -> Iterator[str]:
    """The server's base url. certificate: its file and its key's."""
    command = [sys.executable, "-m", __name__, str(folder), *map(str, certificate)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None, "it is piped"
        yield f"{'https' if certificate else 'http'}://127.0.0.1:{int(server.stdout.readline())}"
    finally:
        server.terminate()
        server.wait()


class _Conversation(asyncio.Protocol):
    """One connection: GET after GET, nothing else is understood."""

    def __init__(self, bodies: dict[bytes, bytes], *, close: bool) -> None:
        self._bodies, self._close, self._asked = bodies, close, b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport), "TCP"
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._asked += data
        while b"\r\n\r\n" in self._asked:
            head, _, self._asked = self._asked.partition(b"\r\n\r\n")
            self._answer(
                self._bodies.get(head.split(b" ", 2)[1]), close=self._close or b"\r\nConnection: close" in head
            )

    def _answer(self, body: bytes | None, *, close: bool) -> None:
        status, data = ("404 Not Found", b"") if body is None else ("200 OK", body)
        kept = "close" if close else "keep-alive"
        lines = (status, "Content-Type: image/jpeg", f"Content-Length: {len(data)}", f"Connection: {kept}", "", "")
        self._transport.write(b"HTTP/1.1 " + "\r\n".join(lines).encode() + data)
        if close:
            self._transport.close()


async def _serve(folder: Path, *certificate: str) -> None:
    bodies = {f"/{path.name}".encode(): path.read_bytes() for path in folder.glob("*.jpg")}
    context = None
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*certificate)
        context.options |= ssl.OP_NO_TICKET
        context.num_tickets = 0
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: _Conversation(bodies, close=bool(certificate)), "127.0.0.1", ssl=context, backlog=512
    )
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve(Path(sys.argv[1]), *sys.argv[2:]))
