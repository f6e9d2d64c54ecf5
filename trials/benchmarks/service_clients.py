"""Clients that caption pictures one after the other, as many at once as are asked for, in a process of their own.

python -m trials.benchmarks.service_clients ADDRESS FOLDER CLIENTS SECONDS    prints what became of each request
"""

import asyncio
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path

import aiohttp

HANGS_S = 120.0


@dataclass(frozen=True)
class Told:
    """Of one request, asked once more where it was answered 503 with Retry-After."""

    seconds: float  # all of it
    outcomes: tuple[str, ...]  # of each time: "200", "503 unavailable", "500 without a type", "hangs" …


async def clients(address: str, pictures: Sequence[bytes], number: int, seconds: float) -> list[Told]:
    until, turns = time.monotonic() + seconds, count()
    told: list[Told] = []

    async def client(session: aiohttp.ClientSession) -> None:
        while time.monotonic() < until:
            told.append(await _with_one_retry(session, f"{address}/caption", pictures[next(turns) % len(pictures)]))

    timeout = aiohttp.ClientTimeout(total=HANGS_S)
    async with aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=0)) as session:
        await asyncio.gather(*(client(session) for _ in range(number)))
    return told


async def _with_one_retry(session: aiohttp.ClientSession, url: str, picture: bytes) -> Told:
    began = time.monotonic()
    outcome, retry_after_s = await _asked(session, url, picture)
    outcomes = [outcome]
    if retry_after_s is not None:
        await asyncio.sleep(retry_after_s)
        outcomes.append((await _asked(session, url, picture))[0])
    return Told(time.monotonic() - began, tuple(outcomes))


async def _asked(session: aiohttp.ClientSession, url: str, picture: bytes) -> tuple[str, float | None]:
    """What was answered, and when to ask again."""
    try:
        async with session.post(url, data=picture) as response:
            body = await response.read()
    except TimeoutError:
        return "hangs", None
    except aiohttp.ClientError as error:
        return type(error).__name__, None
    if response.status == 200:
        return "200", None
    after = response.headers.get("Retry-After")
    return f"{response.status} {_kind(body)}", float(after) if after and response.status == 503 else None


def _kind(body: bytes) -> str:
    try:
        return str(json.loads(body)["error"]["type"])
    except (ValueError, LookupError, TypeError):
        return "without a type"


def main(address: str, folder: str, number: str, seconds: str) -> None:
    pictures = [path.read_bytes() for path in sorted(Path(folder).iterdir())]
    told = asyncio.run(clients(address, pictures, int(number), float(seconds)))
    print(json.dumps([asdict(each) for each in told]))  # noqa: T201


if __name__ == "__main__":
    main(*sys.argv[1:])
