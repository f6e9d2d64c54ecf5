"""A web server on loopback that answers as the web does: with pictures, and with everything else.

    with serve(port=8791) as server:
        server.answers = make_corpus(folder, seed=1, base_url=server.base_url).answers

A url list holds the port, and a list with another port is another input to whoever fingerprints it. So ask for a fixed
port: `serve` takes it where it is free and any other one where it is not. `server.port` says which it became.
"""

import contextlib
import errno
import socket
import socketserver
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from http.server import BaseHTTPRequestHandler

from demo.pictures import Picture, encode

HOST = "127.0.0.1"
DRIP_PAUSE_S = 1.0


class Delivery(Enum):
    """How a body travels."""

    WHOLE = "whole"
    DRIP = "drip"  # one byte, then a pause of DRIP_PAUSE_S, and so on
    ENDLESS = "endless"  # no length, and no end
    CUT = "cut"  # the true length is announced, the connection closes half way
    UNDERSTATED = "understated"  # half the length is announced, all of it is sent


@dataclass(frozen=True)
class Answer:
    """What the server says to one path."""

    body: bytes | Picture = b""
    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    delivery: Delivery = Delivery.WHOLE


NOT_FOUND = Answer(b"Not found", status=404)


class Server(socketserver.ThreadingTCPServer):
    """A thread a connection. Made by `serve`."""

    allow_reuse_address = True  # a port whose last connections are still in TIME_WAIT is free
    request_queue_size = 128
    answers: Mapping[str, Answer]  # by path; may be replaced at any time. Other paths are not found.

    def __init__(self, answers: Mapping[str, Answer], *, port: int) -> None:
        self.answers = answers
        self.closing = threading.Event()
        self._connections: set[socket.socket] = set()
        super().__init__((HOST, port), _Conversation)

    @property
    def port(self) -> int:
        return int(self.socket.getsockname()[1])

    @property
    def base_url(self) -> str:
        return f"http://{HOST}:{self.port}"

    def get_request(self) -> tuple[socket.socket, object]:
        connection, address = super().get_request()
        self._connections.add(connection)
        return connection, address

    def close_request(self, request: socket.socket | tuple[bytes, socket.socket]) -> None:
        assert isinstance(request, socket.socket)
        self._connections.discard(request)
        super().close_request(request)

    def close(self) -> None:
        """Hang up on everybody and wait for the threads, which find their connections shut."""
        self.closing.set()
        self.shutdown()
        for connection in list(self._connections):
            with contextlib.suppress(OSError):  # its thread was faster
                connection.shutdown(socket.SHUT_RDWR)
        self.server_close()


class _Conversation(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else each body waits for the acknowledgement of its head
    server: Server

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError):  # clients leave when they have enough
            super().handle()

    def do_GET(self) -> None:
        answer = self.server.answers.get(self.path, NOT_FOUND)
        body = encode(answer.body) if isinstance(answer.body, Picture) else answer.body
        match answer.delivery:
            case Delivery.WHOLE:
                self._send(answer, body, announced=len(body))
            case Delivery.DRIP:
                self._drip(answer, body)
            case Delivery.ENDLESS:
                self._send_for_ever(answer, body)
            case Delivery.CUT:
                self._send(answer, body[: len(body) // 2], announced=len(body))
                self.close_connection = True
            case Delivery.UNDERSTATED:
                self._send(answer, body, announced=len(body) // 2)
                self.close_connection = True

    def _send(self, answer: Answer, body: bytes, *, announced: int) -> None:
        self._send_head(answer, announced)
        self.wfile.write(body)

    def _drip(self, answer: Answer, body: bytes) -> None:
        self._send_head(answer, len(body))
        for i in range(len(body)):
            self.wfile.write(body[i : i + 1])
            if self.server.closing.wait(DRIP_PAUSE_S):
                return

    def _send_for_ever(self, answer: Answer, body: bytes) -> None:
        self._send_head(answer, None)
        self.wfile.write(body)
        while not self.server.closing.is_set():
            self.wfile.write(bytes(1 << 16))

    def _send_head(self, answer: Answer, length: int | None) -> None:
        self.send_response(answer.status)
        if isinstance(answer.body, Picture):
            self.send_header("Content-Type", answer.body.content_type)
        for name, value in answer.headers:
            self.send_header(name, value)
        if length is None:
            self.send_header("Connection", "close")
        elif answer.status != 204:  # which has no body, not even an empty one
            self.send_header("Content-Length", str(length))
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: the client's own tables say what was asked and how it went."""


@contextlib.contextmanager
def serve(answers: Mapping[str, Answer] | None = None, *, port: int = 0) -> Iterator[Server]:
    """Serve until the block ends, then hang up at once, drips and all. Port 0, or one that is taken: any free one."""
    try:
        server = Server(answers or {}, port=port)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        server = Server(answers or {}, port=0)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.close()
        thread.join()
