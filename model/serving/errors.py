"""What goes wrong with a request: a closed set, so that a program can tell one from another."""

from enum import StrEnum


class Fault(StrEnum):
    BAD_PARAMETER = "bad_parameter"
    NOT_FOUND = "not_found"
    WRONG_METHOD = "wrong_method"
    TOO_LARGE = "too_large"  # the body
    NOT_A_PICTURE = "not_a_picture"  # or one of a kind that is not taken
    BAD_PICTURE = "bad_picture"  # broken, or of too many pixels
    INTERNAL = "internal"
    # The same request may be answered a little later: these come with Retry-After.
    OVERLOADED = "overloaded"
    UNAVAILABLE = "unavailable"  # no replica, or one that died with the request
    DEADLINE = "deadline"


STATUS = {
    Fault.BAD_PARAMETER: 400,
    Fault.NOT_FOUND: 404,
    Fault.WRONG_METHOD: 405,
    Fault.TOO_LARGE: 413,
    Fault.NOT_A_PICTURE: 415,
    Fault.BAD_PICTURE: 422,
    Fault.INTERNAL: 500,
    Fault.OVERLOADED: 503,
    Fault.UNAVAILABLE: 503,
    Fault.DEADLINE: 503,
}
RETRY_AFTER_S = 1  # by then another replica gets the request, or it waits for the one that is being started


class RequestError(Exception):
    """message: for whoever asked; it says what is allowed, or what to do."""

    def __init__(self, fault: Fault, message: str) -> None:
        super().__init__(fault, message)
        self.fault, self.message = fault, message

    @property
    def status(self) -> int:
        return STATUS[self.fault]
