"""The crawler connects to globally routable unicast addresses only, and asks for http and https only."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.download.addresses import DEFAULT_PORTS, is_public, parse_url

PUBLIC = ("1.1.1.1", "8.8.8.8", "93.184.215.14", "192.0.1.1", "2606:4700:4700::1111", "::ffff:8.8.8.8")
REFUSED = {
    "this network": ("0.0.0.0", "0.1.2.3"),
    "private": ("10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1"),
    "carrier": ("100.64.0.1", "100.127.255.255"),
    "loopback": ("127.0.0.1", "127.255.255.254", "::1"),
    "metadata of clouds": ("169.254.169.254", "168.63.129.16", "100.100.100.200", "192.0.0.192", "fd00:ec2::254"),
    "protocol assignments": ("192.0.0.1", "2001::1", "2001:1::1", "2001:20::1"),
    "documentation": ("192.0.2.1", "198.51.100.1", "203.0.113.1", "2001:db8::1", "3fff::1"),
    "benchmarking": ("198.18.0.1", "198.19.255.255", "2001:2::1"),
    "multicast": ("224.0.0.1", "239.255.255.250", "ff02::1", "ff0e::1"),
    "reserved": ("240.0.0.1", "255.255.255.255", "5f00::1", "100::1", "4000::1"),
    "6to4": ("192.88.99.1", "2002:7f00:1::1", "2002:808:808::1"),
    "IPv4 in IPv6": ("::ffff:127.0.0.1", "::ffff:169.254.169.254", "::ffff:168.63.129.16", "::ffff:10.0.0.1"),
    "IPv4-compatible": ("::127.0.0.1", "::8.8.8.8", "::"),
    "IPv4-translated": ("::ffff:0:8.8.8.8",),
    "NAT64": ("64:ff9b::8.8.8.8", "64:ff9b::7f00:1", "64:ff9b:1::1"),
    "unique local": ("fc00::1", "fd12::1"),
    "link-local, site-local": ("fe80::1", "fec0::1"),
    "scope id": ("fe80::1%eth0", "2606:4700:4700::1111%2"),
    "no address": ("", "localhost", "2130706433", "0x7f.1", "127.1", "1.1.1.1:80"),
}


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_are_allowed(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize("address", [each for group in REFUSED.values() for each in group])
def test_every_special_address_is_refused(address: str) -> None:
    assert not is_public(address)


@given(st.ip_addresses())
def test_nothing_is_allowed_that_python_calls_special(ip: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    judged = (ip.ipv4_mapped or ip) if isinstance(ip, ipaddress.IPv6Address) else ip
    special = not judged.is_global or judged.is_multicast or judged.is_reserved or judged.is_link_local
    assert not (special and is_public(str(ip)))


@given(st.ip_addresses(v=4))
def test_an_address_is_judged_alike_inside_ipv6(ip: ipaddress.IPv4Address) -> None:
    assert is_public(f"::ffff:{ip}") == is_public(str(ip))


@pytest.mark.parametrize(
    ("url", "sent", "endpoint"),
    [
        ("http://Example.org", "http://example.org:80/", "example.org:80"),
        (" https://a.org/b?c=d#e\n", "https://a.org:443/b?c=d", "a.org:443"),
        ("http://a.org:8080/a b/ü.jpg?q=é%20", "http://a.org:8080/a%20b/%C3%BC.jpg?q=%C3%A9%20", "a.org:8080"),
        ("http://bücher.de/", "http://xn--bcher-kva.de:80/", "xn--bcher-kva.de:80"),
        ("http://[2606:4700::1]:81/x", "http://[2606:4700::1]:81/x", "[2606:4700::1]:81"),
        ("http://user:secret@a.org/", "http://a.org:80/", "a.org:80"),
        ("http://a.org:1\\@b.org:2/", "http://b.org:2/", "b.org:2"),
    ],
)
def test_a_url_is_sent_in_one_form(url: str, sent: str, endpoint: str) -> None:
    target = parse_url(url)
    assert (target.url, target.endpoint) == (sent, endpoint)


@pytest.mark.parametrize(
    "url",
    ["", "a.org/x.jpg", "ftp://a.org/", "file:///etc/passwd", "data:image/png;base64,AA", "javascript:alert(1)", "http://",
     "http:///x", "http://a.org:99999/", "http://[::1/", "http://a.org/\r\nHost: b", "http://a.org/\0",
     "http://" + "a" * 9000, "http://a.org/\ud800"],
)  # fmt: skip
def test_what_asks_for_no_web_page_is_refused_with_a_reason(url: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_url(url)


@given(st.one_of(st.text(), st.text().map("http://".__add__), st.text().map("https://a.org/".__add__)))
def test_any_text_is_a_clean_request_or_refused(text: str) -> None:
    try:
        target = parse_url(text)
    except ValueError:
        return
    assert target.url.isascii()
    assert target.url.isprintable()
    assert " " not in target.url.removeprefix("http://" + target.endpoint)
    assert target.url.split(":")[0] in DEFAULT_PORTS
    assert parse_url(target.url) == target
