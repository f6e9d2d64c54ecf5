"""Where the crawler may go: which urls it asks for, and which socket addresses it connects to.

The text of a host proves nothing (127.0.0.1 is also 0x7f.1 and 2130706433, and a name may resolve differently the
second time), so hosts are not judged here; the address of the socket about to be connected is.
"""

import string
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from urllib.parse import quote, urlsplit, urlunsplit

DEFAULT_PORTS = {"http": 80, "https": 443}
MAX_URL_CHARACTERS = 8192

# The lists stand here in full because `ipaddress.is_global` changes between versions of Python, and calls multicast,
# NAT64, 6to4 and IPv4-compatible addresses global. Source: IANA's special-purpose registries, and the clouds' own.
_REFUSED_IPV4 = tuple(
    ip_network(block)
    for block in (
        "0.0.0.0/8",  # this network
        "10.0.0.0/8",  # private
        "100.64.0.0/10",  # shared by carriers; one cloud's metadata is 100.100.100.200
        "127.0.0.0/8",  # loopback
        "169.254.0.0/16",  # link-local; most clouds' metadata
        "172.16.0.0/12",  # private
        "192.0.0.0/24",  # protocol assignments; one cloud's metadata is 192.0.0.192
        "192.0.2.0/24",  # documentation
        "192.88.99.0/24",  # 6to4 relays
        "192.168.0.0/16",  # private
        "198.18.0.0/15",  # benchmarking
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, broadcast
        "168.63.129.16/32",  # one cloud's own services, on a public-looking address
    )
)
# Everything else is refused too: loopback, NAT64 (64:ff9b::), unique local, link-local, multicast, 5f00::/16 …
_UNICAST_IPV6 = ip_network("2000::/3")
_REFUSED_IPV6 = tuple(
    ip_network(block)
    for block in (
        "2001::/23",  # protocol assignments: Teredo, ORCHID, benchmarking
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4: an IPv4 address inside
        "3fff::/20",  # documentation
    )
)


def is_public(address: str) -> bool:
    """True for a globally routable unicast address, given as a socket reports it; False for text that is no address.

    IPv4 inside IPv6 is judged as IPv4 where the kernel would connect to it as such (::ffff:a.b.c.d), and refused where
    a gateway would (NAT64, 6to4). An address with a scope id (fe80::1%eth0) is never public.
    """
    if "%" in address:
        return False
    try:
        ip: IPv4Address | IPv6Address = ip_address(address)
    except ValueError:
        return False
    if isinstance(ip, IPv6Address):
        ip = ip.ipv4_mapped or ip
    if isinstance(ip, IPv6Address):
        return ip in _UNICAST_IPV6 and not any(ip in block for block in _REFUSED_IPV6)
    return not any(ip in block for block in _REFUSED_IPV4)


@dataclass(frozen=True)
class Target:
    url: str  # as sent: ASCII only, no fragment, no credentials
    endpoint: str  # host:port in lower case, the port always written: what exceptions are named by

    @property
    def host(self) -> str:
        """Who is asked: one host over http and https, another one at any port of its own."""
        name, _, port = self.endpoint.rpartition(":")
        return name if int(port) in DEFAULT_PORTS.values() else self.endpoint


def parse_url(url: str) -> Target:
    """The request that a url asks for. Raises ValueError, saying why, where it asks for none.

    The url is rebuilt from the parts found here, so that curl cannot read another host out of it than we do. Spaces and
    non-ASCII characters are escaped as browsers do; credentials are dropped.
    """
    url = url.strip()
    if len(url) > MAX_URL_CHARACTERS:
        raise ValueError(f"url of {len(url):,} characters (at most {MAX_URL_CHARACTERS:,})")
    if any(character < " " or character == "\x7f" for character in url):
        raise ValueError("control character in url")
    parts = urlsplit(url)
    if parts.scheme not in DEFAULT_PORTS:
        raise ValueError(f'scheme "{parts.scheme}" (http or https)')
    host = (parts.hostname or "").rstrip(".")
    if not host:
        raise ValueError("no host in url")
    if "%" in host and ":" not in host:  # beside colons it marks a scope
        raise ValueError(f'escaped character in host "{host}"')  # curl would read another one than stands here
    if not host.isascii():
        host = host.encode("idna").decode("ascii")
    host = f"[{host}]" if ":" in host else host
    endpoint = f"{host}:{parts.port or DEFAULT_PORTS[parts.scheme]}"
    path, query = (quote(part, safe=string.punctuation) for part in (parts.path, parts.query))
    return Target(urlunsplit((parts.scheme, endpoint, path or "/", query, "")), endpoint)
