"""The service over HTTP, its replica in this process: what it answers, and how it refuses."""

import io
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from http.client import parse_headers
from typing import Any
from urllib.parse import urlencode

import pytest
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families

from model.evaluation.answerer import Decoding
from model.evaluation.captioner import Captioner
from model.evaluation.given import Given
from model.serving.errors import Fault, RequestError
from model.serving.limits import Limits
from model.serving.wire import Served
from pipeline.errors import InputError
from stages.index import QueryEncoder, Retriever
from tests.serving.conftest import NEIGHBORS, SCENES, Made
from tests.serving.serving import Answer, Here, asked, served

NOTHING = Served(checkpoint="none", index="none", pairs=9, neighbors=2, device="cpu")


@pytest.fixture(scope="module")
def here(made: Made) -> Here:
    return Here(made.checkpoint, made.index)


@pytest.fixture(scope="module")
def address(here: Here) -> Iterator[str]:
    with served(here.ask, here.about, Limits(body_bytes=1_000_000)) as found:
        yield found


@pytest.fixture(scope="module")
def bodies(made: Made) -> list[bytes]:
    return [path.read_bytes() for path in made.pictures]


def test_captions_are_the_captioners_also_where_requests_come_together(
    address: str, bodies: list[bytes], made: Made
) -> None:
    captioner = Captioner.open(made.checkpoint, made.index, Decoding(beams=2, max_new_tokens=5))
    due = list(captioner.captions(Given("", body) for body in bodies))
    with ThreadPoolExecutor(8) as clients:
        url = f"{address}/caption?beams=2&max_new_tokens=5"
        found = [answer.json for answer in clients.map(lambda body: asked(url, body), bodies)]
    assert [each["caption"] for each in found] == [each.caption for each in due]
    for each, one in zip(found, due, strict=True):
        assert [hit["pair_id"] for hit in each["neighbors"]] == [hit.pair["pair_id"] for hit in one.neighbors]
        assert [hit["similarity"] for hit in each["neighbors"]] == pytest.approx(
            [hit.similarity for hit in one.neighbors], abs=1e-6
        )
        assert each["removed"] == one.removed == 1
        assert each["seconds"].keys() == {"embed", "retrieve", "generate", "request"}


@pytest.mark.parametrize("neighbors", range(NEIGHBORS + 1))
def test_the_model_is_shown_as_many_neighbours_as_are_asked_for(
    neighbors: int, address: str, bodies: list[bytes]
) -> None:
    all_of_them = asked(f"{address}/caption?max_new_tokens=2", bodies[0]).json["neighbors"]
    found = asked(f"{address}/caption?max_new_tokens=2&neighbors={neighbors}", bodies[0]).json["neighbors"]
    assert found == all_of_them[:neighbors]


def test_a_text_finds_what_the_index_finds(address: str, made: Made) -> None:
    retriever = Retriever(made.index, direction="text")
    ids, cosines = retriever.search(QueryEncoder.of(retriever.database).texts(["two red stars"]), 3)
    found = asked(f"{address}/search?{urlencode({'text': ' two red stars', 'k': 3})}").json["hits"]
    assert [hit["row_id"] for hit in found] == ids[0].tolist()
    assert [hit["similarity"] for hit in found] == pytest.approx(cosines[0].tolist())
    assert [hit["caption"] for hit in found] == [pair["caption"] for pair in retriever.pairs(ids[0])]


def test_a_picture_finds_itself_and_every_hit_shows_its_picture(address: str, bodies: list[bytes], made: Made) -> None:
    hits = asked(f"{address}/search?k={SCENES}", bodies[7]).json["hits"]
    assert (len(hits), hits[0]["pair_id"]) == (SCENES, "own-0000000007")
    assert hits[0]["similarity"] == pytest.approx(1, abs=1e-3)
    retriever = Retriever(made.index)
    for hit in hits[:3]:
        shown = asked(address + hit["picture"])
        assert shown.headers["Content-Type"] == "image/jpeg"
        assert shown.body == retriever.picture(retriever.pairs([hit["row_id"]])[0])


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/caption?beams=0", "beams is '0'; allowed are whole numbers from 1 to 8"),
        ("/caption?beams=9", "from 1 to 8"),
        ("/caption?beams=1_0", "beams is '1_0'"),
        ("/caption?beams=%D9%A3", "allowed are whole numbers"),
        ("/caption?max_new_tokens=many", "from 1 to 50"),
        ("/caption?max_new_tokens=", "from 1 to 50"),
        ("/caption?neighbors=3", "from 0 to 2"),
        ("/caption?neighbors=00000000000000000002", "from 0 to 2"),
        ("/caption?beam=3", "beam is no parameter of /caption; it takes beams, max_new_tokens, neighbors"),
        ("/caption?beams=2&beams=3", "beams is given 2 times"),
        ("/search?k=99", f"from 1 to {SCENES}"),
        ("/search?k=3&text=a", "text is no parameter"),
    ],
)
def test_a_parameter_that_is_not_allowed_is_refused_with_what_is(path: str, said: str, address: str) -> None:
    answer = asked(address + path, b"")
    assert answer.error == (400, "bad_parameter")
    assert said in answer.json["error"]["message"]


@pytest.mark.parametrize("text", ["", " ", "a" * 1001])
def test_a_search_needs_a_text_of_some_length(text: str, address: str) -> None:
    answer = asked(f"{address}/search?{urlencode({'text': text})}")
    assert answer.error == (400, "bad_parameter")
    assert "allowed are 1 to 1,000" in answer.json["error"]["message"]


def png(width: int, height: int) -> bytes:
    written = io.BytesIO()
    Image.new("1", (width, height)).save(written, "PNG")
    return written.getvalue()


@pytest.mark.parametrize("path", ["/caption", "/search"])
@pytest.mark.parametrize(
    ("body", "status", "fault", "said"),
    [
        (b"", 415, "not_a_picture", "not_an_image: "),
        (b"<html>", 415, "not_a_picture", "taken are JPEG, PNG"),
        (b"<svg></svg>", 415, "not_a_picture", "unsupported_format: SVG"),
        (png(64, 64)[:50], 422, "bad_picture", "corrupt_image: "),
        (png(10_000, 5_001), 422, "bad_picture", "too_many_pixels: 10000 x 5001: more than 50,000,000"),
    ],
    ids=["empty", "page", "svg", "cut", "large"],
)
def test_what_is_no_picture_is_told_with_the_crawls_reason(
    path: str, body: bytes, status: int, fault: str, said: str, address: str
) -> None:
    answer = asked(address + path, body)
    assert answer.error == (status, fault)
    assert said in answer.json["error"]["message"]


def head(path: str, *lines: str) -> bytes:
    return "\r\n".join((f"POST {path} HTTP/1.1", "Host: here", *lines, "", "")).encode()


def conversation(address: str, *sent: bytes) -> "closing[socket.socket]":
    host, _, port = address.removeprefix("http://").partition(":")
    connection = socket.create_connection((host, int(port)), timeout=30)
    for part in sent:
        connection.sendall(part)
    return closing(connection)


def told(connection: socket.socket) -> Answer:
    """Of a response with a length."""
    with connection.makefile("rb") as file:
        status = int(file.readline().split()[1])
        headers = parse_headers(file)
        return Answer(status, headers, file.read(int(headers["Content-Length"])))


def test_a_body_that_is_too_large_is_refused_before_all_of_it_has_come(address: str) -> None:
    announced = head("/caption", "Content-Length: 1000001")
    with conversation(address, announced) as connection:
        assert told(connection).error == (413, "too_large")
    chunk = b"%x\r\n" % 1_000_001 + bytes(1_000_001) + b"\r\n"
    with conversation(address, head("/caption", "Transfer-Encoding: chunked"), chunk) as connection:
        assert told(connection).error == (413, "too_large")


def test_a_head_that_does_not_end_is_not_held(address: str) -> None:
    endless = conversation(address, b"GET /health HTTP/1.1\r\nHost: here\r\nX: ")
    with endless as connection, pytest.raises(ConnectionError):
        connection.sendall(b"a" * 50_000_000)


def test_a_request_beyond_those_that_may_wait_is_to_come_again(here: Here, bodies: list[bytes]) -> None:
    with served(here.ask, here.about, Limits(requests=1)) as address:
        slow = head("/caption?max_new_tokens=1", f"Content-Length: {len(bodies[0])}")
        with conversation(address, slow, bodies[0][:-1]) as first:
            wait_until(lambda: metric(address, "revilm_requests_held") == 1)
            refused = asked(f"{address}/search?text=stars")
            assert refused.error == (503, "overloaded")
            assert refused.headers["Retry-After"] == "1"
            assert asked(f"{address}/health").status == 200
            first.sendall(bodies[0][-1:])
            assert told(first).status == 200
        assert asked(f"{address}/search?text=stars").status == 200
        assert metric(address, "revilm_requests_held") == 0


def test_no_request_hangs(here: Here) -> None:
    with (
        served(here.ask, here.about, Limits(deadline_s=0.2)) as address,
        conversation(address, head("/caption", "Content-Length: 100"), b"a few bytes") as connection,
    ):
        answer = told(connection)
        assert answer.error == (503, "deadline")
        assert answer.headers["Retry-After"] == "1"


def metric(address: str, name: str, **labels: str) -> float | None:
    families = text_string_to_metric_families(asked(f"{address}/metrics").body.decode())
    samples = [sample for family in families for sample in family.samples]
    return next((each.value for each in samples if each.name == name and labels.items() <= each.labels.items()), None)


def wait_until(condition: Any) -> None:
    while not condition():
        pass  # the test's own time limit ends it


def test_requests_are_counted_by_route_and_status(here: Here, bodies: list[bytes]) -> None:
    with served(here.ask, here.about) as address:
        for _ in range(3):
            asked(f"{address}/caption?max_new_tokens=1", bodies[0])
        asked(f"{address}/caption", b"no picture")
        asked(f"{address}/picture/{SCENES}")
        asked(f"{address}/nothing")
        counted = [("/caption", "200"), ("/caption", "415"), ("/picture/{row_id}", "404"), ("other", "404")]
        found = [metric(address, "revilm_requests_total", route=route, status=status) for route, status in counted]
        assert found == [3, 1, 1, 1]
        assert metric(address, "revilm_request_seconds_count", route="/caption") == 4
        assert metric(address, "revilm_caption_seconds_count", part="generate") == 3


@pytest.mark.parametrize(
    ("method", "path", "error"),
    [
        ("GET", "/nothing", (404, "not_found")),
        ("POST", "/nothing", (404, "not_found")),
        ("GET", "/picture/first", (404, "not_found")),
        ("GET", f"/picture/{10**30}", (404, "not_found")),
        ("GET", f"/picture/{'9' * 5000}", (404, "not_found")),
        ("POST", "/caption/", (404, "not_found")),
        ("GET", "/caption", (405, "wrong_method")),
        ("DELETE", "/search", (405, "wrong_method")),
        ("POST", "/", (405, "wrong_method")),
    ],
)
def test_what_is_not_there_is_told_as_json(method: str, path: str, error: tuple[int, str], address: str) -> None:
    assert asked(address + path, method=method).error == error


def test_health_tells_what_was_opened(address: str, made: Made) -> None:
    found = asked(f"{address}/health").json
    assert (found["status"], found["checkpoint"], found["index"]) == ("ok", made.checkpoint, made.index)
    assert (found["pairs"], found["neighbors"]) == (SCENES, NEIGHBORS)


@pytest.mark.parametrize(
    ("raised", "error"),
    [
        (RequestError(Fault.UNAVAILABLE, "lost"), (503, "unavailable")),
        (InputError("the index is gone"), (503, "unavailable")),
        (RuntimeError("/root/secret"), (500, "internal")),
    ],
)
def test_a_replica_that_fails_is_told_without_its_insides(raised: Exception, error: tuple[int, str]) -> None:
    async def failing(method: str, *arguments: Any) -> Any:
        raise raised

    with served(failing, NOTHING) as address:
        answer = asked(f"{address}/search?text=a")
        assert answer.error == error
        assert answer.headers.get("Retry-After") == ("1" if error[0] == 503 else None)
        assert b"secret" not in answer.body
        assert asked(f"{address}/health").error == error


def test_without_an_index_there_are_captions_and_nothing_to_search(made: Made, bodies: list[bytes]) -> None:
    alone = Here(made.checkpoint, None)
    with served(alone.ask, alone.about) as address:
        found = asked(f"{address}/caption?max_new_tokens=3", bodies[0]).json
        assert (found["neighbors"], found["removed"]) == ([], 0)
        assert asked(f"{address}/search?text=a").error == (404, "not_found")
        assert asked(f"{address}/picture/0").error == (404, "not_found")
        assert asked(f"{address}/caption?neighbors=1", bodies[0]).error == (400, "bad_parameter")


def test_the_page_may_load_nothing_from_elsewhere(address: str) -> None:
    answer = asked(f"{address}/")
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    assert "unsafe" not in answer.headers["Content-Security-Policy"]
    assert all(b"http" not in asked(address + path).body.replace(b"/^https?:/", b"") for path in ("/", "/page.css"))
