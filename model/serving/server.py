"""The socket that a service listens on, and its end by a signal."""

import signal
import socket
import sys
from contextlib import suppress

import uvicorn
from starlette.applications import Starlette

from pipeline.errors import InputError

LAST_S = 5  # that requests at work may take when the service is to end
HEAD_BYTES = 1 << 16  # of a request that has not come whole


def listening(host: str, port: int) -> socket.socket:
    """port: 0 takes any that is free. Raises InputError where the address cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except (OSError, OverflowError) as error:
        raise InputError(f"cannot listen at {host}, port {port}: {error}; choose another --host or --port") from None


def address(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def server_of(app: Starlette) -> uvicorn.Server:
    config = uvicorn.Config(
        app,
        http="h11",  # httptools would hold a head of any size
        h11_max_incomplete_event_size=HEAD_BYTES,
        lifespan="off",
        ws="none",
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=LAST_S,
    )
    return uvicorn.Server(config)


def run(app: Starlette, listener: socket.socket) -> None:
    """Until SIGINT or SIGTERM."""
    # uvicorn ends its work at either signal and then raises it once more; by default SIGTERM would end this process
    # there and then, and what it has started would go on.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    with suppress(KeyboardInterrupt, SystemExit):
        server_of(app).run(sockets=[listener])
