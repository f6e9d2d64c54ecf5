"""One curl handle: asks for one url at a time, under every limit, and says what the answer means.

The handle outlives its requests, redirects are not followed here, and everything that curl could take from the
environment (proxies, .netrc) is switched off. Source of the traps: the list that tests/stages/download checks.
"""

import re
import socket
from dataclasses import dataclass
from urllib.parse import urljoin

import certifi
import pycurl

from pipeline.reasons import Reason
from pipeline.stage import ALL, Share
from stages.download.addresses import Target, is_public, parse_url
from stages.download.answers import (
    REDIRECT_STATUSES,
    TAKEN_STATUSES,
    foreign_encoding,
    opts_out,
    reason_of_curl,
    reason_of_status,
)
from stages.download.opt_outs import OptOuts

BOT = "revilm-pipeline"
MAX_HEADER_BYTES = 64 * 1024  # of one answer, all its lines
MAX_ERROR_BYTES = 64 * 1024  # of a body that is not wanted, read only to keep the connection
_HEADERS = ["Accept: image/jpeg, image/png, image/webp, image/*;q=0.8, */*;q=0.5", "Accept-Encoding: identity"]
DNS_CACHE_S = 600
_STATUS_LINE = re.compile(rb"HTTP/[\d.]+ (\d{3})")

_OF_THIS_PROCESS = pycurl.CurlShare()  # the shards that a process makes one after the other meet the same hosts
_OF_THIS_PROCESS.setopt(pycurl.SH_SHARE, pycurl.LOCK_DATA_DNS)


@dataclass(frozen=True)
class FetchLimits:
    deadline_s: float = 20.0  # for one url: of holding a connection, redirects and retries included
    shard_deadline_s: float = 21_600.0  # for all urls together
    max_bytes: int = 20_000_000  # of a body
    max_redirects: int = 5
    retries: int = 1  # for transient reasons, and only inside the deadline
    backoff_s: float = 1.0  # before the first retry; doubles; a longer Retry-After wins
    connections: int = 32
    connections_per_host: int = 8  # of all shares together
    share: Share = ALL
    window_bytes: int = 16_000_000  # bodies that wait for the consumer; memory is this plus connections * max_bytes
    allow: frozenset[str] = frozenset()  # host:port, as in the url, that need not be public
    respect_opt_out: bool = True  # X-Robots-Tag
    opt_outs: OptOuts = OptOuts()
    connect_to: str | None = None  # host:port that every connection goes to, whatever host the url names
    contact: str = "no contact given"  # told to every server
    ca_file: str = certifi.where()

    @property
    def user_agent(self) -> str:
        return f"{BOT}/1 (collects image-text data; {self.contact})"


@dataclass(frozen=True)
class Answer:
    """Of one request: a body, or where to go next, or a reason; exactly one of the three."""

    http_status: int | None
    body: bytes | None = None
    next: Target | None = None
    reason: Reason | None = None
    detail: str = ""
    retry_after_s: float | None = None  # that the server asked for


class _NewSocket(socket.socket):
    """pycurl duplicates the descriptor that it is given and drops this object, which closes its own quietly."""

    def __del__(self) -> None:
        self.close()


class Request:
    """A curl handle and the answer it is reading."""

    def __init__(self, limits: FetchLimits) -> None:
        self._limits = limits
        self.curl = pycurl.Curl()
        for option, value in {
            pycurl.NOSIGNAL: 1,
            pycurl.PROXY: "",  # also keeps curl from reading http_proxy and its like
            pycurl.NETRC: pycurl.NETRC_IGNORED,
            pycurl.PROTOCOLS: pycurl.PROTO_HTTP | pycurl.PROTO_HTTPS,
            pycurl.FOLLOWLOCATION: 0,
            pycurl.HTTP_VERSION: pycurl.CURL_HTTP_VERSION_1_1,
            pycurl.HTTP09_ALLOWED: 0,
            pycurl.SSL_VERIFYPEER: 1,
            pycurl.SSL_VERIFYHOST: 2,
            pycurl.CAINFO: limits.ca_file,
            pycurl.USERAGENT: limits.user_agent,
            pycurl.HTTPHEADER: _HEADERS,
            pycurl.MAXFILESIZE_LARGE: limits.max_bytes,
            pycurl.BUFFERSIZE: 128 * 1024,
            pycurl.SHARE: _OF_THIS_PROCESS,
            pycurl.DNS_CACHE_TIMEOUT: DNS_CACHE_S,
            pycurl.OPENSOCKETFUNCTION: self._open_socket,
            pycurl.HEADERFUNCTION: self._read_header,
            pycurl.WRITEFUNCTION: self._read_body,
        }.items():
            self.curl.setopt(option, value)
        if limits.connect_to:
            self.curl.setopt(pycurl.CONNECT_TO, [f"::{limits.connect_to}"])

    def begin(self, target: Target, timeout_s: float, *, fresh: bool = False) -> None:
        """Set the handle up for one request; whoever drives the handle calls `answer` when curl is done.

        fresh: over a connection of its own, as a second try needs it: a kept one may have been the trouble.
        """
        self._target = target
        self._allowed = target.endpoint in self._limits.allow or self._limits.connect_to is not None
        self._refused_address = ""
        self._verdict: tuple[Reason, str] | None = None
        self._status = 0
        self._headers: dict[str, list[str]] = {}
        self._header_bytes = self._body_bytes = 0
        self._body: list[bytes] = []
        self.curl.setopt(pycurl.URL, target.url)
        self.curl.setopt(pycurl.TIMEOUT_MS, max(1, round(timeout_s * 1000)))
        self.curl.setopt(pycurl.FRESH_CONNECT, int(fresh))

    def answer(self, code: int, message: str) -> Answer:
        """What came of the request that curl ended with error `code` (0: none)."""
        status = self._status or None
        if self._verdict:
            return Answer(status, reason=self._verdict[0], detail=self._verdict[1])
        if self._status in REDIRECT_STATUSES:
            return self._redirect()
        reason = reason_of_status(self._status) if self._status >= 200 else None
        if reason:
            retry_after_s = self.curl.getinfo(pycurl.RETRY_AFTER) if self._header("retry-after") else None
            return Answer(status, reason=reason, detail=f"status {status}", retry_after_s=retry_after_s)
        if code == pycurl.E_COULDNT_CONNECT and self._refused_address:
            detail = f"{self._target.endpoint} is at {self._refused_address}"
            return Answer(status, reason=Reason.ADDRESS_REFUSED, detail=detail)
        if code:
            return Answer(status, reason=reason_of_curl(code), detail=message)
        if not self._body:
            return Answer(status, reason=Reason.EMPTY_BODY, detail="no bytes")
        return Answer(status, body=b"".join(self._body))

    def _redirect(self) -> Answer:
        location = self._header("location")
        if not location:
            return Answer(self._status, reason=Reason.BAD_REDIRECT, detail="no Location")
        try:
            return Answer(self._status, next=parse_url(urljoin(self._target.url, location)))
        except ValueError as fault:
            return Answer(self._status, reason=Reason.BAD_REDIRECT, detail=str(fault))

    def _header(self, name: str) -> str:
        return ", ".join(self._headers.get(name, ()))

    # What follows is called by curl. An exception there would only be printed: a refusal is a verdict and a stop.

    def _open_socket(self, _purpose: int, address: pycurl.CurlSockAddr) -> _NewSocket | int:
        connected = _written(address.addr)
        if not self._allowed and not is_public(connected):
            self._refused_address = connected
            return int(pycurl.SOCKET_BAD)
        return _NewSocket(address.family, address.socktype, address.protocol)

    def _read_header(self, line: bytes) -> int | None:
        self._header_bytes += len(line)
        if self._header_bytes > MAX_HEADER_BYTES:
            return self._stop(Reason.TOO_MANY_BYTES, f"headers of more than {MAX_HEADER_BYTES:,} bytes")
        if status_line := _STATUS_LINE.match(line):
            self._status = int(status_line[1])
            self._headers = {}
        name, colon, value = line.partition(b":")
        if colon:
            self._headers.setdefault(name.decode("latin-1").strip().lower(), []).append(_text(value))
        elif not line.strip():
            return self._judge_headers()
        return None

    def _judge_headers(self) -> int | None:
        """Stop before the body where the headers alone refuse it."""
        if self._status in TAKEN_STATUSES | REDIRECT_STATUSES and self._limits.respect_opt_out:
            for header in self._headers.get("x-robots-tag", ()):
                if directive := opts_out(header, BOT):
                    return self._stop(Reason.OPTED_OUT, f"X-Robots-Tag: {directive}")
        if self._status in TAKEN_STATUSES:
            for name in ("content-encoding", "transfer-encoding"):
                if coding := foreign_encoding(self._header(name)):
                    return self._stop(Reason.ENCODED_BODY, f"{name}: {coding}")
        return None

    def _read_body(self, chunk: bytes) -> int | None:
        self._body_bytes += len(chunk)
        if self._status not in TAKEN_STATUSES:  # the status is the verdict, however its body ends
            return -1 if self._body_bytes > MAX_ERROR_BYTES else None
        if self._body_bytes > self._limits.max_bytes:
            self._body.clear()
            return self._stop(Reason.TOO_MANY_BYTES, f"more than {self._limits.max_bytes:,} bytes")
        self._body.append(chunk)
        return None

    def _stop(self, reason: Reason, detail: str) -> int:
        self._verdict = (reason, detail)
        return -1


def _written(socket_address: tuple[str, int] | tuple[str, int, int, int]) -> str:
    """A socket's address as text, with its scope id where it has one (only IPv6 does)."""
    host, _port, *ipv6 = socket_address
    return f"{host}%{ipv6[1]}" if ipv6 and ipv6[1] else host


def _text(value: bytes) -> str:
    """A header's value; servers send UTF-8 or Latin-1, undeclared."""
    try:
        return value.strip().decode("utf-8")
    except UnicodeDecodeError:
        return value.strip().decode("latin-1")
