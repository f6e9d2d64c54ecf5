"""What an answer from a web server means: status, headers and curl's errors, each as one reason."""

import pycurl

from pipeline.reasons import Reason

TAKEN_STATUSES = frozenset({200, 203})
REDIRECT_STATUSES = frozenset({301, 302, 303, 307, 308})
# "none" is short for "noindex, nofollow".
OPT_OUT_DIRECTIVES = frozenset({"noai", "noimageai", "noindex", "noimageindex", "noml", "none"})
_VALUED_DIRECTIVES = frozenset({"unavailable_after", "max-snippet", "max-image-preview", "max-video-preview"})

_CURL_REASONS = {
    code: reason
    for reason, codes in {
        Reason.BAD_URL: (pycurl.E_URL_MALFORMAT, pycurl.E_URL_MALFORMAT_USER),
        Reason.DNS: (pycurl.E_COULDNT_RESOLVE_HOST,),
        Reason.DEADLINE: (pycurl.E_OPERATION_TIMEDOUT,),
        Reason.TLS: (
            pycurl.E_SSL_CONNECT_ERROR,
            pycurl.E_PEER_FAILED_VERIFICATION,
            pycurl.E_SSL_CERTPROBLEM,
            pycurl.E_SSL_CIPHER,
            pycurl.E_SSL_SHUTDOWN_FAILED,
            pycurl.E_SSL_ISSUER_ERROR,
            pycurl.E_SSL_INVALIDCERTSTATUS,
            pycurl.E_SSL_CACERT_BADFILE,
        ),
        Reason.TOO_MANY_BYTES: (pycurl.E_FILESIZE_EXCEEDED, 100),  # 100: headers too large, unnamed in pycurl
        Reason.ENCODED_BODY: (pycurl.E_BAD_CONTENT_ENCODING,),
    }.items()
    for code in codes
}


def reason_of_curl(code: int) -> Reason:
    """The reason for curl's error `code`; what is not named above broke the connection.

    That holds for an answer that is not HTTP/1 too: on a kept connection it is mostly what an earlier answer sent
    beyond its announced length, and a second try gets another connection.
    """
    return _CURL_REASONS.get(code, Reason.CONNECTION)


def reason_of_status(status: int) -> Reason | None:
    """The reason for an HTTP status; None where a picture may follow. Redirects are told apart before."""
    if status in TAKEN_STATUSES:
        return None
    if status in (408, 429):
        return Reason.HTTP_BUSY
    if 400 <= status < 500:
        return Reason.HTTP_CLIENT_ERROR
    return Reason.HTTP_SERVER_ERROR if 500 <= status < 600 else Reason.HTTP_UNEXPECTED


def opts_out(header: str, bot: str) -> str | None:
    """The directive by which one X-Robots-Tag header refuses `bot` (its name, in lower case), or None.

    "noai, noindex" speaks to everybody; in "otherbot: noindex, noai" the name holds for what follows it.
    """
    addressee = bot
    for part in header.lower().split(","):
        name, colon, directive = (piece.strip() for piece in part.partition(":"))
        if colon and name not in _VALUED_DIRECTIVES:
            addressee = bot if name == "*" else name
        else:
            directive = name
        if addressee == bot and directive in OPT_OUT_DIRECTIVES:
            return directive
    return None


def foreign_encoding(header: str) -> str | None:
    """The first coding in a Content-Encoding or Transfer-Encoding header that changes the bytes, or None."""
    codings = (coding.strip().lower() for coding in header.split(","))
    return next((coding for coding in codings if coding not in ("", "identity", "chunked")), None)
