"""Each way in which a web server can answer has exactly one reason."""

import pycurl
import pytest

from pipeline.reasons import TRANSIENT, Reason
from stages.download.answers import foreign_encoding, opts_out, reason_of_curl, reason_of_status

BOT = "revilm-pipeline"


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (200, None),
        (203, None),
        (100, Reason.HTTP_UNEXPECTED),
        (204, Reason.HTTP_UNEXPECTED),
        (206, Reason.HTTP_UNEXPECTED),
        (304, Reason.HTTP_UNEXPECTED),
        (999, Reason.HTTP_UNEXPECTED),
        (400, Reason.HTTP_CLIENT_ERROR),
        (404, Reason.HTTP_CLIENT_ERROR),
        (451, Reason.HTTP_CLIENT_ERROR),
        (408, Reason.HTTP_BUSY),
        (429, Reason.HTTP_BUSY),
        (500, Reason.HTTP_SERVER_ERROR),
        (503, Reason.HTTP_SERVER_ERROR),
        (523, Reason.HTTP_SERVER_ERROR),
    ],
)
def test_reason_of_a_status(status: int, reason: Reason | None) -> None:
    assert reason_of_status(status) is reason


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (pycurl.E_COULDNT_RESOLVE_HOST, Reason.DNS),
        (pycurl.E_COULDNT_CONNECT, Reason.CONNECTION),
        (pycurl.E_RECV_ERROR, Reason.CONNECTION),
        (pycurl.E_PARTIAL_FILE, Reason.CONNECTION),
        (pycurl.E_GOT_NOTHING, Reason.CONNECTION),
        (pycurl.E_OPERATION_TIMEDOUT, Reason.DEADLINE),
        (pycurl.E_PEER_FAILED_VERIFICATION, Reason.TLS),
        (pycurl.E_SSL_CONNECT_ERROR, Reason.TLS),
        (pycurl.E_URL_MALFORMAT, Reason.BAD_URL),
        (pycurl.E_FILESIZE_EXCEEDED, Reason.TOO_MANY_BYTES),
        (pycurl.E_UNSUPPORTED_PROTOCOL, Reason.CONNECTION),
    ],
)
def test_reason_of_an_error_of_curl(code: int, reason: Reason) -> None:
    assert reason_of_curl(code) is reason


def test_an_error_that_has_no_entry_is_worth_a_second_try() -> None:
    assert all(isinstance(reason_of_curl(code), Reason) for code in range(1, 200))
    assert reason_of_curl(199) in TRANSIENT


@pytest.mark.parametrize(
    ("header", "directive"),
    [
        ("noai", "noai"),
        ("noimageai", "noimageai"),
        ("noindex", "noindex"),
        ("noimageindex", "noimageindex"),
        ("NoML", "noml"),
        ("none", "none"),
        ("noarchive, noindex, nosnippet", "noindex"),
        ("revilm-pipeline: noai", "noai"),
        ("Revilm-Pipeline: noarchive, noai", "noai"),
        ("*: noai", "noai"),
        ("otherbot: noindex, revilm-pipeline: noml", "noml"),
        ("max-snippet: 20, noai", "noai"),
        ("unavailable_after: 25 Jun 2030 15:00:00 PST, noindex", "noindex"),
        ("otherbot: noindex, noai", None),
        ("revilm-pipeline: noarchive", None),
        ("index, archive", None),
        ("all", None),
        ("noarchive", None),
        ("noaim", None),
        ("", None),
        (",:,::", None),
    ],
)
def test_opt_out_in_a_robots_header(header: str, directive: str | None) -> None:
    assert opts_out(header, BOT) == directive


@pytest.mark.parametrize(
    ("header", "coding"),
    [
        ("gzip", "gzip"),
        ("identity, BR", "br"),
        ("gzip, chunked", "gzip"),
        ("identity", None),
        ("chunked", None),
        ("", None),
    ],
)
def test_an_encoding_that_changes_the_bytes(header: str, coding: str | None) -> None:
    assert foreign_encoding(header) == coding
