"""A service in this process, asked over HTTP."""

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.message import Message
from typing import Any
from urllib.error import HTTPError
from urllib.request import ProxyHandler, Request, build_opener

from model.serving.app import Ask, application
from model.serving.limits import Limits
from model.serving.replica import Replica
from model.serving.server import address, listening, server_of
from model.serving.wire import Served

WAITING_S = 60


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Message
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> tuple[int, str]:
        return self.status, self.json["error"]["type"]


class Here:
    """A replica in this process."""

    def __init__(self, checkpoint: str, index: str | None) -> None:
        self.replica = Replica(checkpoint, index, threads=1)
        self.about = asyncio.run(self.replica.about())

    async def ask(self, method: str, *arguments: Any) -> Any:
        return await getattr(self.replica, method)(*arguments)


@contextmanager
def served(ask: Ask, about: Served, limits: Limits | None = None) -> Iterator[str]:
    """→ the address."""
    with listening("127.0.0.1", 0) as listener:
        server = server_of(application(ask, about, limits or Limits()))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield address(listener)
        finally:
            server.should_exit = True
            thread.join()


def asked(url: str, body: bytes | None = None, method: str | None = None) -> Answer:
    request = Request(url, data=body, method=method)
    try:
        with build_opener(ProxyHandler({})).open(request, timeout=WAITING_S) as response:
            return Answer(response.status, response.headers, response.read())
    except HTTPError as error:
        with error:
            return Answer(error.code, error.headers, error.read())
