"""The parameters of a request, of its query and its path. Each raises RequestError, which says what is allowed."""

import re
from collections.abc import Collection

from starlette.requests import Request

from model.serving.errors import Fault, RequestError


def refuse_unknown(request: Request, known: Collection[str]) -> None:
    for name, times in ((name, len(request.query_params.getlist(name))) for name in request.query_params):
        if name not in known:
            raise _bad(f"{name} is no parameter of {request.url.path}; it takes {', '.join(known) or 'none'}")
        if times > 1:
            raise _bad(f"{name} is given {times} times; allowed is once")


def whole_number(request: Request, name: str, least: int, most: int, default: int) -> int:
    given = request.query_params.get(name, str(default))
    # int() would also read "1_0", " 1" and digits of other scripts.
    if not re.fullmatch(r"[0-9]{1,9}", given) or not least <= int(given) <= most:
        raise _bad(f"{name} is {given[:40]!r}; allowed are whole numbers from {least} to {most}")
    return int(given)


def words(request: Request, name: str, most_chars: int) -> str:
    given = request.query_params.get(name, "").strip()
    if not 1 <= len(given) <= most_chars:
        raise _bad(f"{name} has {len(given):,} characters; allowed are 1 to {most_chars:,}")
    return given


def row_id_of(request: Request) -> int:
    given: str = request.path_params["row_id"]
    if not re.fullmatch(r"[0-9]{1,18}", given):  # int() refuses thousands of digits
        raise RequestError(Fault.NOT_FOUND, f"no pair of the index has the row id {given[:40]}")
    return int(given)


def _bad(message: str) -> RequestError:
    return RequestError(Fault.BAD_PARAMETER, message)
