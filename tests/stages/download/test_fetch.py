"""Fetching within bounds: nothing that a server does gets past a limit, or keeps the other urls from being fetched."""

import socket
import ssl
import threading
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pycurl
import pytest

from pipeline.reasons import Reason
from stages.download.addresses import parse_url
from stages.download.fetch import Fetched, fetch_all
from stages.download.request import FetchLimits, Request
from stages.download.transfers import Transfers

BODY = b"a picture " * 1000


def limits_for(server: Any, **settings: Any) -> FetchLimits:
    return FetchLimits(**{"allow": frozenset({server.endpoint}), "deadline_s": 5.0, "retries": 0, **settings})


def fetch(server: Any, path: str, **settings: Any) -> Fetched:
    (fetched,) = fetch_all([server.url(path)], limits_for(server, **settings))
    return fetched


def redirect(url: str) -> str:
    return "/to?url=" + quote(url, safe="")


def test_a_body_arrives_as_sent(server: Any) -> None:
    fetched = fetch(server, "/ok")
    assert (fetched.index, fetched.body, fetched.reason, fetched.http_status) == (0, BODY, None, 200)
    assert 0 < fetched.fetch_ms < 5000


def test_every_url_has_one_result_and_a_body_or_a_reason(server: Any) -> None:
    urls = [server.url("/ok"), "nonsense", server.url("/status?n=404"), "", server.url("/a b/ü")] * 20
    results = {fetched.index: fetched for fetched in fetch_all(urls, limits_for(server))}
    assert sorted(results) == list(range(len(urls)))
    assert all((fetched.body is None) != (fetched.reason is None) for fetched in results.values())
    expected = [None, Reason.BAD_URL, Reason.HTTP_CLIENT_ERROR, Reason.BAD_URL, None]
    assert [results[index].reason for index in range(5)] == expected


def test_no_urls_no_results() -> None:
    assert list(fetch_all([], FetchLimits())) == []


def test_the_crawler_says_who_it_is(server: Any) -> None:
    fetch(server, "/ok", contact="https://example.org/about")
    headers = server.requests[0][1]
    assert headers["user-agent"] == "revilm-pipeline/1 (collects image-text data; https://example.org/about)"
    assert headers["accept-encoding"] == "identity"
    assert not {"cookie", "referer", "authorization"} & set(headers)


# Addresses


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "localhost", "0x7f.1", "2130706433", "0177.0.0.1", "127.1", "0.0.0.0", "[::1]", "[::ffff:127.0.0.1]",
     "①②⑦.0.0.1", "127.0.0.%31", "user@127.0.0.1", "[::127.0.0.1]"],
)  # fmt: skip
def test_loopback_is_refused_however_it_is_spelt(server: Any, host: str) -> None:
    port = server.server_address[1]
    (fetched,) = fetch_all([f"http://{host}:{port}/ok"], FetchLimits(deadline_s=5, retries=0))
    assert fetched.reason in (Reason.ADDRESS_REFUSED, Reason.BAD_URL)
    assert server.connections == 0


@pytest.mark.parametrize("address", ["169.254.169.254", "10.0.0.1", "168.63.129.16", "[fe80::1%25lo]", "[64:ff9b::1]"])
def test_special_addresses_are_refused_without_a_packet(address: str) -> None:
    started = time.monotonic()
    (fetched,) = fetch_all([f"http://{address}/latest/meta-data"], FetchLimits(deadline_s=5))
    assert fetched.reason is Reason.ADDRESS_REFUSED
    assert time.monotonic() - started < 2


def test_an_exception_is_for_its_host_and_its_port(server: Any, other_server: Any) -> None:
    results = fetch_all([server.url("/ok"), other_server.url("/ok")], limits_for(server))
    assert {fetched.index: fetched.reason for fetched in results} == {0: None, 1: Reason.ADDRESS_REFUSED}
    assert other_server.connections == 0


def test_a_redirect_reaches_no_other_port_of_an_excepted_host(server: Any, other_server: Any) -> None:
    assert fetch(server, redirect(other_server.url("/ok"))).reason is Reason.ADDRESS_REFUSED
    assert other_server.connections == 0


def test_a_name_is_judged_by_the_address_it_has_when_connecting(server: Any) -> None:
    """A name that looked public when it was checked, and now resolves to loopback: only the socket tells."""
    port = server.server_address[1]
    target = parse_url(f"http://rebinding.example.com:{port}/ok")
    request, transfers = Request(FetchLimits()), Transfers(1)
    request.curl.setopt(pycurl.RESOLVE, [f"rebinding.example.com:{port}:127.0.0.1"])
    request.begin(target, 5)
    transfers.start(request.curl)
    while not (ended := transfers.wait(1)):
        pass
    transfers.close()
    assert request.answer(ended[0].code, ended[0].message).reason is Reason.ADDRESS_REFUSED
    assert server.connections == 0


def test_proxies_and_passwords_of_the_environment_are_ignored(
    server: Any, other_server: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://{other_server.endpoint}")
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login me password secret\n")
    assert fetch(server, "/ok").body == BODY
    assert other_server.connections == 0
    assert "authorization" not in server.requests[0][1]


# Redirects


def test_redirects_are_followed_up_to_the_limit(server: Any) -> None:
    assert fetch(server, "/count?n=5", max_redirects=5).body == BODY
    assert fetch(server, "/count?n=6", max_redirects=5).reason is Reason.TOO_MANY_REDIRECTS


def test_a_redirect_loop_ends(server: Any) -> None:
    assert fetch(server, "/loop", max_redirects=3).reason is Reason.TOO_MANY_REDIRECTS
    assert server.seen["/loop"] == 4


@pytest.mark.parametrize("url", ["http://169.254.169.254/latest/", "http://2130706433:1/", "http://[::1]:22/"])
def test_a_redirect_to_a_special_address_is_refused(server: Any, url: str) -> None:
    assert fetch(server, redirect(url)).reason is Reason.ADDRESS_REFUSED


@pytest.mark.parametrize(
    "url",
    ["file:///etc/passwd", "ftp://example.org/x", "data:image/png;base64,AA==", "gopher://127.0.0.1:70/", "http://[",
     "http://a b/", "https://:80/"],
)  # fmt: skip
def test_a_redirect_to_no_web_page_is_refused(server: Any, url: str) -> None:
    assert fetch(server, redirect(url)).reason is Reason.BAD_REDIRECT


def test_a_redirect_that_names_no_place_is_refused(server: Any) -> None:
    assert fetch(server, "/nowhere").reason is Reason.BAD_REDIRECT


# Sizes and encodings


def test_a_body_may_have_exactly_the_cap(server: Any) -> None:
    assert len(fetch(server, "/bytes?n=5000", max_bytes=5000).body or b"") == 5000
    assert fetch(server, "/bytes?n=5001", max_bytes=5000).reason is Reason.TOO_MANY_BYTES


@pytest.mark.parametrize("path", ["/declared", "/endless", "/endless_headers"])
def test_a_body_without_end_is_cut(server: Any, path: str) -> None:
    assert fetch(server, path, max_bytes=1_000_000).reason is Reason.TOO_MANY_BYTES
    assert server.sent_bytes < 20_000_000  # what kernel buffers hold


def test_an_error_page_without_end_is_the_error(server: Any) -> None:
    assert fetch(server, "/endless_error").reason is Reason.HTTP_CLIENT_ERROR


def test_an_encoded_body_is_refused(server: Any) -> None:
    assert fetch(server, "/header?Content-Encoding=gzip").reason is Reason.ENCODED_BODY
    assert fetch(server, "/header?Content-Encoding=identity").body == BODY


# Answers


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/status?n=404", Reason.HTTP_CLIENT_ERROR),
        ("/status?n=503", Reason.HTTP_SERVER_ERROR),
        ("/status?n=429", Reason.HTTP_BUSY),
        ("/status?n=204", Reason.HTTP_UNEXPECTED),
        ("/status?n=304", Reason.HTTP_UNEXPECTED),
        ("/bytes?n=0", Reason.EMPTY_BODY),
        ("/short", Reason.CONNECTION),
        ("/garbage", Reason.CONNECTION),
    ],
)
def test_reason_of_an_answer(server: Any, path: str, reason: Reason) -> None:
    assert fetch(server, path).reason is reason


def test_a_closed_port_is_a_broken_connection() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        endpoint = f"127.0.0.1:{listener.getsockname()[1]}"
    (fetched,) = fetch_all([f"http://{endpoint}/"], FetchLimits(allow=frozenset({endpoint}), retries=0))
    assert fetched.reason is Reason.CONNECTION


def test_opt_out_is_respected_unless_switched_off(server: Any) -> None:
    fetched = fetch(server, "/header?X-Robots-Tag=noarchive,%20noai")
    assert (fetched.body, fetched.reason, fetched.detail) == (None, Reason.OPTED_OUT, "X-Robots-Tag: noai")
    assert fetch(server, "/header?X-Robots-Tag=otherbot:%20noai").body == BODY
    assert fetch(server, "/header?X-Robots-Tag=noai", respect_opt_out=False).body == BODY


# Time


@pytest.mark.parametrize("path", ["/drip", "/silent", "/dripping_headers", "/count?n=5&wait=0.2"])
def test_one_deadline_holds_from_the_first_request_to_the_last_byte(server: Any, path: str) -> None:
    started = time.monotonic()
    assert fetch(server, path, deadline_s=0.5, retries=3).reason is Reason.DEADLINE
    assert 0.4 < time.monotonic() - started < 1.5


def test_the_worst_mix_ends_in_the_promised_time(server: Any) -> None:
    paths = ["/drip", "/silent", "/endless", "/loop", "/dripping_headers", "/short", "/garbage", "/flaky?n=503", "/ok"]
    urls = [server.url(path) for path in paths * 4] + ["http://169.254.169.254/", "http://host.invalid/"] * 4
    limits = limits_for(server, deadline_s=0.4, connections=8, connections_per_host=8, max_bytes=100_000, retries=5)
    started = time.monotonic()
    results = list(fetch_all(urls, replace(limits, backoff_s=0.01)))
    assert len(results) == len(urls)
    assert time.monotonic() - started < 0.4 * len(urls) / 8 + 2
    assert max(fetched.fetch_ms for fetched in results) < 1400


def test_a_slow_consumer_costs_no_deadline(server: Any) -> None:
    pause = threading.Event()
    urls = [server.url("/slow")] * 8
    for fetched in fetch_all(urls, limits_for(server, deadline_s=0.6, connections=2)):
        assert fetched.body == BODY
        pause.wait(0.25)


# Retries


def test_a_deadline_holds_when_curl_asks_again_by_itself(server: Any) -> None:
    # It does where a kept connection is closed without an answer, and gives each such try the whole of its timeout.
    urls = [server.url("/slow")] * 3 + [server.url("/fickle")]
    results = {fetched.index: fetched for fetched in fetch_all(urls, limits_for(server, deadline_s=1.0, connections=3))}
    assert results[3].reason is Reason.DEADLINE
    assert results[3].fetch_ms < 1700  # by curl alone 1,900


def test_a_second_try_without_time_leaves_the_first_reason(server: Any) -> None:
    fetched = fetch(server, "/fading", deadline_s=0.4, retries=3, backoff_s=0.05)
    assert (fetched.reason, fetched.http_status, len(server.requests)) == (Reason.HTTP_SERVER_ERROR, 503, 2)


def test_a_redirect_takes_a_place_at_the_host_that_it_leads_to(server: Any, other_server: Any) -> None:
    urls = [other_server.url(redirect(server.url("/slow")))] * 12
    allow = frozenset({server.endpoint, other_server.endpoint})
    limits = replace(limits_for(server, connections=12, connections_per_host=3), allow=allow)
    assert all(fetched.body == BODY for fetched in fetch_all(urls, limits))
    assert server.peak <= 3


def test_bytes_beyond_the_announced_length_spoil_no_other_answer(server: Any) -> None:
    urls = [server.url(path) for path in ["/beyond", "/ok"] * 20]
    limits = limits_for(server, connections=1, retries=2, backoff_s=0.01)
    bodies = {fetched.index: fetched.body for fetched in fetch_all(urls, limits)}
    assert [bodies[index] for index in range(1, 40, 2)] == [BODY] * 20


@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_a_transient_failure_is_tried_again(server: Any, status: int) -> None:
    assert fetch(server, f"/flaky?n={status}", retries=1, backoff_s=0.01).body == BODY
    assert server.seen["/flaky"] == 2


@pytest.mark.parametrize(
    "path", ["/status?n=404", "/status?n=204", "/loop", "/bytes?n=0", "/header?Content-Encoding=br"]
)
def test_a_lasting_failure_is_not_tried_again(server: Any, path: str) -> None:
    assert fetch(server, path, retries=3, backoff_s=0.01, max_redirects=0).body is None
    assert len(server.requests) == 1


def test_retries_are_counted(server: Any) -> None:
    assert fetch(server, "/status?n=500", retries=3, backoff_s=0.01).reason is Reason.HTTP_SERVER_ERROR
    assert len(server.requests) == 4


def test_a_wait_that_the_deadline_forbids_is_not_begun(server: Any) -> None:
    started = time.monotonic()
    assert fetch(server, "/flaky?n=429&after=3600", retries=1).reason is Reason.HTTP_BUSY
    assert time.monotonic() - started < 2


# Connections and memory


def test_connections_are_used_again(server: Any) -> None:
    paths = ["/ok", "/status?n=404", "/count?n=2"] * 10
    results = list(fetch_all([server.url(path) for path in paths], limits_for(server, connections=1)))
    assert len(results) == 30
    assert server.connections == 1


def test_a_host_gets_its_share_of_connections_only(server: Any, other_server: Any) -> None:
    urls = [server.url("/slow")] * 12 + [other_server.url("/slow")] * 12
    limits = limits_for(server, allow=frozenset({server.endpoint, other_server.endpoint}), connections_per_host=3)
    assert all(fetched.body for fetched in fetch_all(urls, limits))
    assert (server.peak, other_server.peak) == (3, 3)


def test_hosts_take_turns(server: Any, other_server: Any) -> None:
    urls = [server.url("/ok")] * 20 + [other_server.url("/ok")]
    limits = limits_for(server, allow=frozenset({server.endpoint, other_server.endpoint}), connections=1)
    order = [fetched.index for fetched in fetch_all(urls, limits)]
    assert order.index(20) == 1


def test_no_more_is_fetched_than_the_window_while_the_consumer_is_busy(server: Any) -> None:
    limits = limits_for(server, connections=2, window_bytes=5 * len(BODY))
    results = fetch_all([server.url("/ok")] * 100, limits)
    next(results)
    most = 1 + 5 + 1 + 2  # taken, in the window, the one that overfills it, under way
    assert not server.saw(requests=most + 1, timeout_s=0.5)
    assert len(list(results)) == 99


def test_closing_the_iterator_ends_the_thread_and_its_sockets(server: Any) -> None:
    results = fetch_all([server.url("/ok")] + [server.url("/drip")] * 5, limits_for(server, deadline_s=60))
    next(results)
    (thread,) = (thread for thread in threading.enumerate() if thread.name == "fetch")
    results.close()  # type: ignore[attr-defined]
    thread.join(5)
    assert not thread.is_alive()
    assert server.lost_every_client(timeout_s=5)


def test_no_connection_stays_open(server: Any) -> None:
    assert len(list(fetch_all([server.url("/ok")] * 20, limits_for(server)))) == 20
    assert server.connections > 1
    assert server.lost_every_client(timeout_s=5)


# TLS


def test_a_certificate_must_be_vouched_for(server: Any, tmp_path: Path) -> None:
    certificate = write_certificate(tmp_path / "server.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    url = server.url("/ok").replace("http:", "https:")
    assert [each.reason for each in fetch_all([url], limits_for(server))] == [Reason.TLS]
    assert [each.body for each in fetch_all([url], limits_for(server, ca_file=str(certificate)))] == [BODY]


def write_certificate(path: Path) -> Path:
    """A self-signed certificate for 127.0.0.1, with its key."""
    x509 = pytest.importorskip("cryptography.x509", reason="makes the certificate")
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem, pkcs8, plain = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    path.write_bytes(key.private_bytes(pem, pkcs8, plain) + certificate.public_bytes(pem))
    return path
