"""Many curl handles at once: curl's multi interface on the operating system's own selector.

curl says which sockets it wants to hear of and when it wants to be woken, and is told which are ready. Its own wait
(`select`) stops at file descriptor 1024 and spins while a name is being resolved.
"""

import selectors
import time
from dataclasses import dataclass

import pycurl

_EVENTS = {
    pycurl.POLL_IN: selectors.EVENT_READ,
    pycurl.POLL_OUT: selectors.EVENT_WRITE,
    pycurl.POLL_INOUT: selectors.EVENT_READ | selectors.EVENT_WRITE,
}


@dataclass(frozen=True)
class Ended:
    curl: pycurl.Curl
    code: int  # curl's error; 0: none
    message: str


class Transfers:
    """The handles under way. Connections are kept and used again for the same scheme, host and port."""

    def __init__(self, kept_connections: int) -> None:
        self._selector = selectors.DefaultSelector()
        self._alarm: float | None = None  # time.monotonic() at which curl wants to be called
        self._multi = pycurl.CurlMulti()
        self._multi.setopt(pycurl.M_MAXCONNECTS, kept_connections)
        self._multi.setopt(pycurl.M_SOCKETFUNCTION, self._watch)
        self._multi.setopt(pycurl.M_TIMERFUNCTION, self._set_alarm)

    def start(self, curl: pycurl.Curl) -> None:
        self._multi.add_handle(curl)

    def stop(self, curl: pycurl.Curl) -> None:
        """Drop one transfer and its connection."""
        self._multi.remove_handle(curl)

    def wait(self, timeout_s: float) -> list[Ended]:
        """Let the transfers go on for at most `timeout_s`; those that ended, each once."""
        if self._alarm is not None:
            timeout_s = min(timeout_s, self._alarm - time.monotonic())
        for key, events in self._selector.select(max(0.0, timeout_s)):
            readable = pycurl.CSELECT_IN if events & selectors.EVENT_READ else 0
            writable = pycurl.CSELECT_OUT if events & selectors.EVENT_WRITE else 0
            self._multi.socket_action(key.fd, readable | writable)
        if self._alarm is not None and self._alarm <= time.monotonic():
            self._alarm = None
            self._multi.socket_action(pycurl.SOCKET_TIMEOUT, 0)
        return self._ended()

    def close(self) -> None:
        """Drop what is under way. Waits for names still being resolved, which no client can stop."""
        self._multi.close()
        self._selector.close()

    def _ended(self) -> list[Ended]:
        ended: list[Ended] = []
        more = True
        while more:
            more, done, failed = self._multi.info_read()
            ended += [Ended(curl, 0, "") for curl in done]
            ended += [Ended(curl, code, message) for curl, code, message in failed]
        for each in ended:
            self._multi.remove_handle(each.curl)
        return ended

    def _watch(self, what: int, fd: int, _multi: pycurl.CurlMulti, _data: object) -> None:
        if fd in self._selector.get_map():
            self._selector.unregister(fd)
        if events := _EVENTS.get(what):
            self._selector.register(fd, events)

    def _set_alarm(self, delay_ms: int) -> None:
        self._alarm = None if delay_ms < 0 else time.monotonic() + delay_ms / 1000
