"""The service as HTTP: its routes, what is checked before a replica is asked, and what goes wrong, as JSON.

Every request ends: in an answer or, after the deadline at the latest, in an error of the closed set of errors.py.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from model.serving.errors import RETRY_AFTER_S, Fault, RequestError
from model.serving.limits import Limits
from model.serving.meters import Meters
from model.serving.parameters import refuse_unknown, row_id_of, whole_number, words
from model.serving.wire import Served, Wish
from pipeline.errors import PipelineError

log = logging.getLogger("pipeline")

PAGE = Path(__file__).parent / "page"
FILES = {"/": "page.html", "/page.css": "page.css", "/page.js": "page.js", "/icon.svg": "icon.svg"}
MEDIA = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
HEALTH_S = 5.0  # that a replica may take to say that it is there
BEAMS, NEW_TOKENS, HITS = 3, 20, 5  # unless asked for otherwise
CLIENT_GONE = 499  # is told to nobody but the meters

Handler = Callable[[Request], Awaitable[Response]]


class Ask(Protocol):
    """A method of Replica, wherever one runs. Raises RequestError where none can answer."""

    def __call__(self, method: str, *arguments: Any) -> Awaitable[Any]: ...


def application(ask: Ask, about: Served, limits: Limits) -> Starlette:
    """about: what the replicas have opened."""
    front = _Front(ask, about, limits)
    app = Starlette(routes=front.routes(), exception_handlers={HTTPException: front.no_route})
    app.router.redirect_slashes = False  # a redirect is no answer: "/caption/" is not there
    return app


@dataclass
class _Front:
    ask: Ask
    about: Served
    limits: Limits
    meters: Meters = field(default_factory=Meters)
    _held: int = 0

    def routes(self) -> list[Route]:
        return [
            self._route("/caption", self._bounded(self.caption), "POST"),
            self._route("/search", self._bounded(self.search), "GET", "POST"),
            self._route("/picture/{row_id}", self._bounded(self.picture), "GET"),
            self._route("/health", self.health, "GET"),
            self._route("/metrics", self.metrics, "GET"),
            *(self._route(path, self.page, "GET") for path in FILES),
        ]

    async def caption(self, request: Request) -> Response:
        began, most = time.perf_counter(), self.about.neighbors
        refuse_unknown(request, ("beams", "max_new_tokens", "neighbors"))
        wish = Wish(
            beams=whole_number(request, "beams", 1, self.limits.beams, BEAMS),
            new_tokens=whole_number(request, "max_new_tokens", 1, self.limits.new_tokens, NEW_TOKENS),
            neighbors=whole_number(request, "neighbors", 0, most, most),
        )
        told = await self._asked("caption", await self._body(request), wish)
        self.meters.captioned(told["seconds"])
        return _json(told | {"seconds": told["seconds"] | {"request": time.perf_counter() - began}})

    async def search(self, request: Request) -> Response:
        began = time.perf_counter()
        self._need_index()
        refuse_unknown(request, ("text", "k") if request.method == "GET" else ("k",))
        k = whole_number(request, "k", 1, min(self.limits.hits, self.about.pairs), min(HITS, self.about.pairs))
        if request.method == "GET":
            told = await self._asked("search_text", words(request, "text", self.limits.text_chars), k)
        else:
            told = await self._asked("search_picture", await self._body(request), k)
        return _json(told | {"seconds": {"request": time.perf_counter() - began}})

    async def picture(self, request: Request) -> Response:
        self._need_index()
        row_id = row_id_of(request)
        return Response(await self._asked("picture", row_id), media_type="image/jpeg")

    async def health(self, request: Request) -> Response:
        try:
            async with asyncio.timeout(HEALTH_S):
                found: Served = await self.ask("about")
        except TimeoutError:
            raise RequestError(Fault.UNAVAILABLE, f"no replica has answered for {HEALTH_S:g} s") from None
        return _json({"status": "ok", **asdict(found), "limits": asdict(self.limits)})

    async def metrics(self, request: Request) -> Response:
        return Response(self.meters.text(), media_type=CONTENT_TYPE_LATEST)

    async def page(self, request: Request) -> Response:
        file = PAGE / FILES[request.url.path]
        return Response(file.read_bytes(), media_type=MEDIA[file.suffix])

    async def no_route(self, request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException), "of Starlette's router"
        allowed = (error.headers or {}).get("Allow", "")
        if error.status_code == 405:
            told = RequestError(Fault.WRONG_METHOD, f"{request.url.path} takes {allowed}, not {request.method}")
        else:
            told = RequestError(Fault.NOT_FOUND, f"there is nothing at {request.url.path}")
        self.meters.answered("other", told.status, time.perf_counter())
        return _error(told, {"Allow": allowed} if allowed else {})

    def _route(self, path: str, handler: Handler, *methods: str) -> Route:
        async def answer(request: Request) -> Response:
            began = time.perf_counter()
            response = await self._answered(handler, request)
            self.meters.answered(path, response.status_code, began)
            response.headers.update(HEADERS)
            return response

        return Route(path, answer, methods=methods)

    async def _answered(self, handler: Handler, request: Request) -> Response:
        try:
            async with asyncio.timeout(self.limits.deadline_s):
                return await handler(request)
        except RequestError as error:
            return _error(error)
        except TimeoutError:
            late = f"the request has taken more than {self.limits.deadline_s:g} s"
            return _error(RequestError(Fault.DEADLINE, late))
        except PipelineError as error:  # a replica that came later cannot open what the first one could
            return _error(RequestError(Fault.UNAVAILABLE, str(error)))
        except ClientDisconnect:
            return Response(status_code=CLIENT_GONE)
        except Exception:
            log.exception("%s %s", request.method, request.url.path)
            return _error(RequestError(Fault.INTERNAL, "that was a fault of the service, and is in its log"))

    def _bounded(self, handler: Handler) -> Handler:
        async def answer(request: Request) -> Response:
            with self._place():
                return await handler(request)

        return answer

    @contextmanager
    def _place(self) -> Iterator[None]:
        """Taken before the body is read, so that the bodies held are as bounded as the work."""
        if self._held >= self.limits.requests:
            raise RequestError(Fault.OVERLOADED, f"{self._held} requests are at work or wait already")
        self._held += 1
        try:
            with self.meters.held():
                yield
        finally:
            self._held -= 1

    async def _asked(self, method: str, *arguments: Any) -> Any:
        told = await self.ask(method, *arguments)
        if isinstance(told, RequestError):
            raise told
        return told

    async def _body(self, request: Request) -> bytes:
        """Raises RequestError as soon as it is known to be too large: by what is announced, or by what has come."""
        most, announced = self.limits.body_bytes, request.headers.get("Content-Length", "0")
        too_large = RequestError(Fault.TOO_LARGE, f"a picture may have {most:,} bytes")
        if announced.isdecimal() and int(announced) > most:
            raise too_large
        parts, size = [], 0
        async for part in request.stream():
            size += len(part)
            if size > most:
                raise too_large
            parts.append(part)
        return b"".join(parts)

    def _need_index(self) -> None:
        if not self.about.pairs:
            raise RequestError(Fault.NOT_FOUND, "this service was started without an index to search in")


def _json(told: dict[str, Any], status: int = 200) -> Response:
    return JSONResponse(told, status)


def _error(error: RequestError, headers: dict[str, str] | None = None) -> Response:
    response = _json({"error": {"type": error.fault, "message": error.message}}, error.status)
    if error.status == 503:
        response.headers["Retry-After"] = str(RETRY_AFTER_S)
    response.headers.update(HEADERS | (headers or {}))
    return response
