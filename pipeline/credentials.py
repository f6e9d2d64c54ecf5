"""Keys belong in the environment or in the cloud's own files: a url that holds them is refused, and never repeated."""

import re

_CREDENTIALS = re.compile(
    r"(?<=://)(?<!http://)(?<!https://)[^/@\s]*:\S*(?=@)"  # key:secret@bucket, where a secret may hold slashes
    r"|(?<=http://)[^/@\s]+(?=@)|(?<=https://)[^/@\s]+(?=@)"  # token@host
    r"|(?P<name>[?&](?:x-(?:amz|goog)-)?(?:signature|credential|security-token|sig|awsaccesskeyid|access_token)=)"
    r"[^&\s'\"]+",
    re.IGNORECASE,
)

REFUSAL = "a url holds credentials; give them through the environment or the cloud's own files"


def holds_credentials(url: str) -> bool:
    """A secret may hold slashes, a chained url several addresses, and a signed url carries its key in the query."""
    return _CREDENTIALS.search(url) is not None


def redact(text: str) -> str:
    """The text with dots in place of whatever `holds_credentials` objects to."""
    return _CREDENTIALS.sub(lambda found: f"{found['name'] or ''}…", text)
