"""Why a row left the pipeline: a closed set, so that reasons group, and a table of counts means one thing."""

from enum import StrEnum


class Reason(StrEnum):
    # ingest: faults that the list itself shows
    MALFORMED_ROW = "malformed_row"  # wrong number of columns, or not a row at all
    NOT_UTF8 = "not_utf8"
    NULL_CAPTION = "null_caption"
    OVERSIZED_CAPTION = "oversized_caption"
    BAD_URL = "bad_url"  # no host, unknown scheme, control characters, too long
    BAD_PATH = "bad_path"  # a local picture outside the folder that the recipe names
    # ingest: what the source's own columns say, where the recipe asks (`prefilter`)
    PREFILTER_CLIP_SCORE = "prefilter_clip_score"
    PREFILTER_SIZE = "prefilter_size"
    PREFILTER_NSFW = "prefilter_nsfw"
    PREFILTER_WATERMARK = "prefilter_watermark"
    PREFILTER_AESTHETIC = "prefilter_aesthetic"
    # ingest: beside other rows
    DUPLICATE_ROW = "duplicate_row"  # same url (or place of a local picture) and caption as an earlier row of any list
    # download: the network
    DNS = "dns"
    ADDRESS_REFUSED = "address_refused"  # not a globally routable unicast address
    CONNECTION = "connection"  # refused, reset, closed early
    TLS = "tls"
    DEADLINE = "deadline"
    HTTP_CLIENT_ERROR = "http_client_error"  # 4xx except 408 and 429
    HTTP_SERVER_ERROR = "http_server_error"  # 5xx
    HTTP_BUSY = "http_busy"  # 408, 429
    HTTP_UNEXPECTED = "http_unexpected"  # a status that carries no picture: 1xx, 204, 304 …
    BAD_REDIRECT = "bad_redirect"  # to another scheme, or to no url at all
    TOO_MANY_REDIRECTS = "too_many_redirects"
    OPTED_OUT = "opted_out"  # X-Robots-Tag
    ENCODED_BODY = "encoded_body"  # a content-encoding that was not asked for
    TOO_MANY_BYTES = "too_many_bytes"
    EMPTY_BODY = "empty_body"
    MISSING_FILE = "missing_file"  # of a local source
    # download: the bytes
    NOT_AN_IMAGE = "not_an_image"
    UNSUPPORTED_FORMAT = "unsupported_format"  # a picture of a kind that is not taken (SVG, TIFF …)
    ANIMATED = "animated"
    TOO_MANY_PIXELS = "too_many_pixels"
    CORRUPT_IMAGE = "corrupt_image"  # truncated, or not decodable
    # filter: the pair
    REMOVED_ON_REQUEST = "removed_on_request"
    LOW_CLIP_SCORE = "low_clip_score"
    SMALL_IMAGE = "small_image"
    EXTREME_ASPECT = "extreme_aspect"
    NSFW = "nsfw"
    WATERMARK = "watermark"
    DUPLICATE = "duplicate"
    PLACEHOLDER = "placeholder"  # one picture under many unrelated captions
    EVALUATION_PICTURE = "evaluation_picture"  # of a set that a model is to be measured on
    # filter: irregular text (Re-ViLM §4.1)
    CAPTION_TOO_SHORT = "caption_too_short"
    CAPTION_TOO_LONG = "caption_too_long"
    CAPTION_NO_LETTERS = "caption_no_letters"
    CAPTION_DIGITS = "caption_digits"
    CAPTION_SYMBOLS = "caption_symbols"
    CAPTION_URL = "caption_url"
    CAPTION_FILE_NAME = "caption_file_name"
    CAPTION_HTML = "caption_html"
    CAPTION_REPETITION = "caption_repetition"
    CAPTION_BOILERPLATE = "caption_boilerplate"
    # interleave
    STARVED = "starved"  # fewer pairs in the band of its image than a sample needs
    # captioning and evaluation
    PROMPT_TOO_LONG = "prompt_too_long"  # no room for an answer behind it
    # any stage: a shard that failed for good, under `accept_failed: true`
    SHARD_FAILED = "shard_failed"


TRANSIENT = frozenset(
    {
        Reason.DNS,
        Reason.CONNECTION,
        Reason.TLS,
        Reason.DEADLINE,
        Reason.HTTP_SERVER_ERROR,
        Reason.HTTP_BUSY,
        Reason.SHARD_FAILED,
    }
)
"""Reasons that a second pass over the same url may not meet again."""

_ALL = list(Reason)
OF_DOWNLOAD = frozenset(_ALL[_ALL.index(Reason.DNS) : _ALL.index(Reason.REMOVED_ON_REQUEST)]) | TRANSIENT
"""Reasons of rows that were tried, or were to be: a second pass may ask for any of them."""
