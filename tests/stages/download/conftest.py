"""A web server on loopback that misbehaves on demand: what it does stands in the path."""

import threading
import time
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

BODY = b"a picture " * 1000


class HostileServer(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), HostileHandler)
        self.stopping = threading.Event()
        self.changed = threading.Condition()
        self.connections = self.closed = 0
        self.requests: list[tuple[str, dict[str, str]]] = []  # path with query, headers in lower case
        self.times: list[float] = []  # of the requests, time.monotonic()
        self.seen: Counter[str] = Counter()  # requests by path
        self.busy = self.peak = 0  # requests being answered, and the most of them at once
        self.sent_bytes = 0
        self.endpoint = f"127.0.0.1:{self.server_address[1]}"

    def url(self, path: str) -> str:
        return f"http://{self.endpoint}{path}"

    def saw(self, requests: int, timeout_s: float) -> bool:
        with self.changed:
            return self.changed.wait_for(lambda: len(self.requests) >= requests, timeout_s)

    def process_request(self, request: Any, client_address: Any) -> None:
        self.connections += 1
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        super().shutdown_request(request)
        with self.changed:
            self.closed += 1
            self.changed.notify_all()

    def lost_every_client(self, timeout_s: float) -> bool:
        with self.changed:
            return self.changed.wait_for(lambda: self.closed == self.connections, timeout_s)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is what most tests here are about."""


class HostileHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: HostileServer

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        self.query = {key: values[-1] for key, values in parse_qs(parts.query).items()}
        with self.server.changed:
            self.server.requests.append((self.path, {key.lower(): value for key, value in self.headers.items()}))
            self.server.times.append(time.monotonic())
            self.server.seen[parts.path] += 1
            self.server.busy += 1
            self.server.peak = max(self.server.peak, self.server.busy)
            self.server.changed.notify_all()
        try:
            getattr(self, "say_" + parts.path.split("/")[1], self.say_ok)()
        finally:
            with self.server.changed:
                self.server.busy -= 1

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.answered = True
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.send(body)

    def send(self, data: bytes) -> None:
        self.wfile.write(data)
        self.server.sent_bytes += len(data)

    def say_ok(self) -> None:
        self.answer(200, BODY)

    def say_fickle(self) -> None:
        """A kept connection is closed without a word, a new one is never answered."""
        if getattr(self, "answered", False):
            self.server.stopping.wait(0.3)
            self.close_connection = True
        else:
            self.say_silent()

    def say_beyond(self) -> None:
        self.answer(200, BODY)
        self.send(BODY)

    def say_bytes(self) -> None:
        self.answer(200, b"x" * int(self.query["n"]))

    def say_status(self) -> None:
        self.answer(int(self.query["n"]), b"an error page" if self.query["n"] not in ("204", "304") else b"")

    def say_header(self) -> None:
        self.answer(200, BODY, **self.query)

    def say_to(self) -> None:
        self.answer(302, Location=self.query["url"])

    def say_loop(self) -> None:
        self.answer(302, Location=self.path)

    def say_count(self) -> None:
        """A chain of redirects with n links, each taking `wait` seconds."""
        left = int(self.query["n"])
        self.server.stopping.wait(float(self.query.get("wait", 0)))
        if left:
            self.answer(302, Location=f"/count?n={left - 1}&wait={self.query.get('wait', 0)}")
        else:
            self.say_ok()

    def say_nowhere(self) -> None:
        self.answer(302)

    def say_slow(self) -> None:
        self.server.stopping.wait(0.1)
        self.say_ok()

    def say_silent(self) -> None:
        self.server.stopping.wait(30)
        self.close_connection = True

    def say_drip(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "1000000")
        self.end_headers()
        while not self.server.stopping.wait(0.02):
            self.send(b".")

    def say_dripping_headers(self) -> None:
        self.send_response(200)
        self.flush_headers()
        while not self.server.stopping.wait(0.02):
            self.send(b"X-Drop: 1\r\n")

    def say_endless(self) -> None:
        self.send_response(200)
        self.end_headers()
        while not self.server.stopping.is_set():
            self.send(b"." * 65536)

    def say_endless_error(self) -> None:
        self.send_response(404)
        self.end_headers()
        while not self.server.stopping.is_set():
            self.send(b"." * 65536)

    def say_endless_headers(self) -> None:
        self.send_response(200)
        self.flush_headers()
        while not self.server.stopping.is_set():
            self.send(b"X-Header: " + b"y" * 1000 + b"\r\n")

    def say_declared(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(10**10))
        self.end_headers()
        while not self.server.stopping.is_set():
            self.send(b"." * 65536)

    def say_short(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "1000")
        self.end_headers()
        self.send(b"only this")
        self.close_connection = True

    def say_garbage(self) -> None:
        self.send(b"SSH-2.0-OpenSSH_9.6\r\n")
        self.close_connection = True

    def say_fading(self) -> None:
        """Unavailable at the first request of this path, silent afterwards."""
        if self.server.seen[urlsplit(self.path).path] == 1:
            self.answer(503)
        else:
            self.say_silent()

    def say_flaky(self) -> None:
        """Busy at the first request of this path, well afterwards."""
        if self.server.seen[urlsplit(self.path).path] == 1:
            self.answer(int(self.query["n"]), Retry_After=self.query.get("after", "0"))
        else:
            self.say_ok()


def running(server: HostileServer) -> Iterator[HostileServer]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.stopping.set()
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def server() -> Iterator[HostileServer]:
    yield from running(HostileServer())


@pytest.fixture
def other_server() -> Iterator[HostileServer]:
    yield from running(HostileServer())
