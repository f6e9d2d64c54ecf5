"""Every kind of url is answered as its row in KINDS says, many at once, and hanging up takes no time."""

import contextlib
import gzip
import http.client
import io
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from PIL import Image

from demo.corpus import CLOSED_ADDRESS, GOOD, KINDS, DemoCorpus, Kind, Row, make_corpus
from demo.pictures import Picture, encode
from demo.scenes import Scene
from demo.server import Answer, Delivery, Server, serve

PICTURE = Picture(Scene(object="star", colour="blue", count=1, place="beach", texture="plain", view=3))
PATIENCE_S = 10.0


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, DemoCorpus]]:
    with serve() as server:
        corpus = make_corpus(tmp_path_factory.mktemp("demo"), seed=1, urls=300, base_url=server.base_url)
        server.answers = corpus.answers
        yield server, corpus


def first(corpus: DemoCorpus, name: str) -> Row:
    return next(row for row in corpus.rows if row.kind.name == name)


@contextlib.contextmanager
def get(server: Server, path: str) -> Iterator[http.client.HTTPResponse]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE_S)
    with contextlib.closing(connection):
        connection.request("GET", path)
        with contextlib.closing(connection.getresponse()) as response:
            yield response


@contextlib.contextmanager
def get_kind(served: tuple[Server, DemoCorpus], name: str) -> Iterator[http.client.HTTPResponse]:
    server, corpus = served
    with get(server, first(corpus, name).url.removeprefix(server.base_url)) as response:
        yield response


def shows_a_picture(kind: Kind) -> bool:
    """Whether the first answer carries a picture as it should, whatever the caption or the score may say."""
    whole = kind.answer.delivery is Delivery.WHOLE and kind.answer.status == 200
    decodes = kind.encoding not in ("html", "svg", "nothing", "truncated_jpeg", "pixel_bomb", "gzip_bomb")
    return whole and decodes and kind.url.startswith("{base_url}")


@pytest.mark.parametrize("kind", [kind for kind in KINDS if shows_a_picture(kind)], ids=lambda kind: kind.name)
def test_a_picture_comes_whole_and_decodes(kind: Kind, served: tuple[Server, DemoCorpus]) -> None:
    row = first(served[1], kind.name)
    with get_kind(served, kind.name) as response:
        body = response.read()
        assert response.status == 200
        assert response.headers["Content-Type"] == row.picture.content_type
    assert body == encode(row.picture)
    Image.open(io.BytesIO(body)).load()


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("not_found", 404),
        ("gone", 410),
        ("server_error", 500),
        ("unavailable", 503),
        ("busy", 429),
        ("no_content", 204),
    ],
)
def test_a_status_is_answered(name: str, status: int, served: tuple[Server, DemoCorpus]) -> None:
    with get_kind(served, name) as response:
        assert response.status == status
        assert (response.read() == b"") == (status == 204)


@pytest.mark.parametrize(
    ("name", "head"),
    [("html_as_jpg", b"<!doctype html>"), ("svg", b"<svg"), ("empty_body", b""), ("truncated_jpeg", b"\xff\xd8")],
)
def test_what_is_no_picture_comes_with_status_200(name: str, head: bytes, served: tuple[Server, DemoCorpus]) -> None:
    with get_kind(served, name) as response:
        body = response.read()
        assert response.status == 200
    assert body.startswith(head)
    assert bool(body) == bool(head)


@pytest.mark.parametrize(("name", "status"), [("moved_permanently", 301), ("moved_for_now", 302)])
def test_a_good_redirect_leads_to_the_picture(name: str, status: int, served: tuple[Server, DemoCorpus]) -> None:
    server, corpus = served
    with get_kind(served, name) as response:
        assert response.status == status
        location = response.headers["Location"]
    with get(server, location) as response:
        assert response.read() == encode(first(corpus, name).picture)


@pytest.mark.parametrize(
    ("name", "location"), [("to_metadata", "http://169.254.169.254/"), ("to_file", "file:///etc/passwd")]
)
def test_a_hostile_redirect_points_where_nobody_should_go(
    name: str, location: str, served: tuple[Server, DemoCorpus]
) -> None:
    with get_kind(served, name) as response:
        assert (response.status, response.headers["Location"]) == (302, location)


def test_a_redirect_loop_leads_to_itself(served: tuple[Server, DemoCorpus]) -> None:
    with get_kind(served, "redirect_loop") as response:
        assert response.headers["Location"] == first(served[1], "redirect_loop").path + ".jpg"


def test_an_opt_out_is_in_the_header(served: tuple[Server, DemoCorpus]) -> None:
    with get_kind(served, "opted_out") as response:
        assert response.headers["X-Robots-Tag"] == "noai"


def test_bombs_are_small_on_the_wire(served: tuple[Server, DemoCorpus]) -> None:
    with get_kind(served, "gzip_bomb") as response:
        assert response.headers["Content-Encoding"] == "gzip"
        body = response.read()
    assert len(body) < 1_000_000 < len(gzip.decompress(body))
    with get_kind(served, "pixel_bomb") as response:
        assert len(response.read()) < 1_000_000


def test_a_drip_comes_byte_by_byte(served: tuple[Server, DemoCorpus]) -> None:
    with get_kind(served, "drip") as response:
        started = time.monotonic()
        assert response.read(2) == b"\xff\xd8"
        assert time.monotonic() - started > 0.5
        assert int(response.headers["Content-Length"]) > 1000


def test_an_endless_body_does_not_end(served: tuple[Server, DemoCorpus]) -> None:
    with get_kind(served, "endless") as response:
        assert response.headers["Content-Length"] is None
        assert len(response.read(40 << 20)) == 40 << 20


def test_a_cut_body_ends_before_its_length(served: tuple[Server, DemoCorpus]) -> None:
    with get_kind(served, "cut") as response, pytest.raises(http.client.IncompleteRead) as caught:
        response.read()
    assert len(caught.value.partial) == int(response.headers["Content-Length"]) // 2


def test_an_understated_length_is_half_of_what_is_sent(served: tuple[Server, DemoCorpus]) -> None:
    server, corpus = served
    row = first(corpus, "understated_length")
    whole = encode(row.picture)
    with get_kind(served, "understated_length") as response:
        assert response.read() == whole[: len(whole) // 2]
    with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE_S) as connection:
        connection.sendall(f"GET {row.path}.jpg HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert read_to_end(connection).endswith(whole)


def read_to_end(connection: socket.socket) -> bytes:
    return b"".join(iter(lambda: connection.recv(1 << 16), b""))


def test_nobody_listens_on_the_closed_address(served: tuple[Server, DemoCorpus]) -> None:
    assert first(served[1], "refused").url.startswith(f"http://{CLOSED_ADDRESS}/")
    host, port = CLOSED_ADDRESS.split(":")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((host, int(port)), timeout=PATIENCE_S)


def test_only_urls_of_the_server_have_an_answer(served: tuple[Server, DemoCorpus]) -> None:
    server, corpus = served
    for row in corpus.rows:
        path = row.url.removeprefix(server.base_url)
        assert (path in corpus.answers) == row.kind.url.startswith("{base_url}")
    with get(server, "/elsewhere") as response:
        assert response.status == 404


def test_forty_connections_are_kept_alive_beside_drips(served: tuple[Server, DemoCorpus]) -> None:
    server, corpus = served
    paths = [f"{row.path}.jpg" for row in corpus.rows if row.kind is GOOD][:40]

    def ask_three_times(path: str) -> list[bytes]:
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE_S)) as connection:
            connection.connect()
            connected = connection.sock
            bodies = []
            for _ in range(3):
                connection.request("GET", path)
                bodies.append(connection.getresponse().read())
            assert connection.sock is connected
            return bodies

    with contextlib.ExitStack() as drips, ThreadPoolExecutor(40) as clients:
        for _ in range(10):
            drips.enter_context(get_kind(served, "drip"))
        asked = list(clients.map(ask_three_times, paths))
    expected = {f"{row.path}.jpg": encode(row.picture) for row in corpus.rows if row.kind is GOOD}
    assert asked == [[expected[path]] * 3 for path in paths]


def test_the_server_hangs_up_at_once_on_drips_endless_bodies_and_idle_connections() -> None:
    answers = {
        "/drip": Answer(PICTURE, delivery=Delivery.DRIP),
        "/endless": Answer(PICTURE, delivery=Delivery.ENDLESS),
        "/picture": Answer(PICTURE),
    }
    leaving: list[float] = []
    with contextlib.ExitStack() as clients, serve(answers) as server:
        for path in [*answers] * 4:
            connection = clients.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE_S))
            connection.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            assert connection.recv(1) == b"H"
        leaving.append(time.monotonic())
    assert time.monotonic() - leaving[0] < 2


def test_a_port_that_is_taken_is_replaced_by_a_free_one() -> None:
    with serve() as first_server:
        taken = first_server.port
        with serve(port=taken) as second_server:
            assert second_server.port != taken
    with serve(port=taken) as server:
        assert server.port == taken
