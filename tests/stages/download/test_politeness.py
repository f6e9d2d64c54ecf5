"""What a web server feels of a crawl: limits hold over all shards, wishes are heard, and nobody asks in vain."""

import re
import threading
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import RecipeError
from pipeline.reasons import Reason
from pipeline.stage import Share
from stages.download import Download, DownloadRecipe
from stages.download.addresses import parse_url
from stages.download.fetch import Fetched, fetch_all
from stages.download.hosts import TURN_S, connections_now
from stages.download.opt_outs import OptOuts
from stages.download.request import FetchLimits

BODY = b"a picture " * 1000
HOSTS = [f"host{n}.example.org:80" for n in range(20)]


def crawl(server: Any, urls: list[str], **settings: Any) -> dict[int, Fetched]:
    limits = {"allow": frozenset({server.endpoint}), "deadline_s": 5.0, "retries": 0, "backoff_s": 0.05, **settings}
    return {fetched.index: fetched for fetched in fetch_all(urls, FetchLimits(**limits))}


# Limits of a host


@pytest.mark.parametrize(("limit", "of"), [(8, 1), (8, 3), (3, 8), (1, 2), (7, 7), (1, 80), (10, 4)])
def test_the_shares_of_a_limit_add_up_to_it_at_any_time(limit: int, of: int) -> None:
    for host in HOSTS:
        for clock in (0.0, 4.9, 5.0, 1234.5, 1e9):
            assert sum(connections_now(limit, host, Share(number, of), clock) for number in range(of)) == limit


def test_every_shard_has_its_turn_at_every_host() -> None:
    for host in HOSTS:
        turns = [connections_now(3, host, Share(5, 8), turn * TURN_S) for turn in range(8)]
        assert sorted(turns) == [0] * 5 + [1] * 3


@pytest.mark.parametrize(("limit", "of"), [(8, 1024), (8, 130), (1, 500), (3, 4096)])
def test_however_many_shards_there_are_every_turn_comes_long_before_their_deadline(limit: int, of: int) -> None:
    for host in HOSTS[:5]:
        clocks = (1e9 + 0.05 * tick for tick in range(20 * 700))
        assert any(connections_now(limit, host, Share(of // 2, of), clock) for clock in clocks)


def test_two_shards_at_once_stay_below_the_limit_of_their_host(server: Any) -> None:
    shards = [Share(0, 2), Share(1, 2)]
    ended: list[dict[int, Fetched]] = []

    def shard(share: Share) -> None:
        ended.append(crawl(server, [server.url("/slow")] * 12, share=share, connections_per_host=4))

    threads = [threading.Thread(target=shard, args=(share,)) for share in shards]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [fetched.body for urls in ended for fetched in urls.values()] == [BODY] * 24
    assert server.peak == 4


def test_a_limit_that_does_not_go_round_still_lets_every_shard_finish(
    server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stages.download.hosts.TURN_S", 0.3)
    fetched = crawl(server, [server.url("/ok")] * 3, share=Share(0, 2), connections_per_host=1)
    assert [fetched[index].body for index in range(3)] == [BODY] * 3


# What a server asks for


def test_a_server_that_asks_for_patience_is_left_alone_for_so_long(server: Any) -> None:
    urls = [server.url("/flaky?n=503&after=1"), *[server.url("/ok")] * 4]
    fetched = crawl(server, urls, retries=1, connections_per_host=1)
    assert [fetched[index].body for index in range(5)] == [BODY] * 5
    assert server.times[1] - server.times[0] >= 1.0
    assert max(later - earlier for earlier, later in pairwise(server.times[1:])) < 0.7


def test_waiting_for_a_server_costs_no_deadline(server: Any) -> None:
    fetched = crawl(server, [server.url("/flaky?n=429&after=1")], retries=1, deadline_s=0.5)
    assert fetched[0].body == BODY
    assert fetched[0].fetch_ms > 1000


def test_who_asks_for_more_than_a_minute_is_left_to_a_second_pass_with_all_its_urls(
    server: Any, other_server: Any
) -> None:
    urls = [server.url("/flaky?n=503&after=3600"), *[server.url("/ok")] * 9, other_server.url("/ok")]
    allow = frozenset({server.endpoint, other_server.endpoint})
    started = time.monotonic()
    fetched = crawl(server, urls, retries=3, connections_per_host=1, allow=allow)
    assert time.monotonic() - started < 2
    assert {fetched[index].reason for index in range(10)} == {Reason.HTTP_SERVER_ERROR}
    assert (len(server.requests), fetched[10].body) == (1, BODY)
    assert "told of another url" in fetched[3].detail
    assert fetched[3].http_status is None


def test_patience_asked_for_beside_a_final_answer_costs_other_urls_nothing(server: Any) -> None:
    urls = [server.url("/flaky?n=404&after=3600"), *[server.url("/ok")] * 3]
    fetched = crawl(server, urls, connections_per_host=1)
    assert [fetched[index].reason for index in range(4)] == [Reason.HTTP_CLIENT_ERROR, None, None, None]


@pytest.mark.parametrize("retries", [0, 1])
def test_a_host_without_an_address_is_looked_up_for_few_urls_only(retries: int) -> None:
    urls = [f"http://nowhere.invalid/{n}" for n in range(200)]
    limits = FetchLimits(deadline_s=5, retries=retries, backoff_s=0.1, connections_per_host=3)
    fetched = {each.index: each for each in fetch_all(urls, limits)}
    assert {each.reason for each in fetched.values()} == {Reason.DNS}
    assert sum(each.fetch_ms > 0 for each in fetched.values()) == 3


def test_domains_and_urls_that_opted_out_are_not_asked(server: Any) -> None:
    opted_out = ["no.example.org", "http://example.com/one"]
    urls = ["http://no.example.org/a", "http://pictures.no.example.org/b", "http://example.com:80/one",
            "http://yes.example.org/c", "http://example.com/to?url=http%3A%2F%2Fno.example.org%2Fd"]  # fmt: skip
    fetched = crawl(server, urls, opt_outs=OptOuts.load(opted_out), connect_to=server.endpoint)
    assert [fetched[index].reason for index in range(5)] == [Reason.OPTED_OUT] * 3 + [None, Reason.OPTED_OUT]
    assert sorted(path.partition("?")[0] for path, _ in server.requests) == ["/c", "/to"]
    assert fetched[1].detail == "download.opt_out: no.example.org"


@pytest.mark.parametrize(
    ("entry", "url"),
    [
        ("Bücher.example", "http://www.bücher.example/a"),
        ("bücher.example", "http://xn--bcher-kva.example/a"),
        ("xn--bcher-kva.example", "http://BÜCHER.example./a"),
        ("example.org", "http://example。org/a"),
    ],
)
def test_an_opt_out_holds_however_the_host_is_spelled(entry: str, url: str) -> None:
    assert OptOuts.load([entry]).entry(parse_url(url)) is not None


@pytest.mark.parametrize("entry", ["*.example.org", ".example.org", "example.org?a", "ex%61mple.org", "http://"])
def test_what_would_never_be_met_is_no_opt_out(entry: str) -> None:
    with pytest.raises(RecipeError, match=r"download\.opt_out"):
        OptOuts.load([entry])


def test_a_list_of_opt_outs_is_read_from_a_file_and_stands_in_the_record_by_its_checksum(tmp_path: Path) -> None:
    path = tmp_path / "opted_out.txt"
    path.write_text("# asked by mail\nexample.org\n\nhttps://example.com/one\n")
    stage = Download(DownloadRecipe(opt_out=str(path)))
    assert (
        stage.conditions()["opt_out"]
        == Download(DownloadRecipe(opt_out=("https://example.com/one", "Example.org"))).opt_outs.checksum
    )


@pytest.mark.parametrize("entry", ["not a domain", "*.example.org", ".example.org"])
def test_an_opt_out_that_could_never_be_met_is_refused(entry: str) -> None:
    with pytest.raises(RecipeError, match=rf"download\.opt_out: '{re.escape(entry)}' is neither a url .* nor a domain"):
        Download(DownloadRecipe(opt_out=(entry,)))


def test_a_domain_opts_out_however_its_letters_are_written(server: Any) -> None:
    urls = ["http://b\u00fccher.example/1", "http://xn--bcher-kva.example/2", "http://A.B\u00dcCHER.example/3"]
    fetched = crawl(server, urls, opt_outs=OptOuts.load(["B\u00fccher.Example"]), connect_to=server.endpoint)
    assert {each.reason for each in fetched.values()} == {Reason.OPTED_OUT}


# Many hosts


def test_every_connection_can_be_sent_to_one_server_and_hosts_keep_their_names(server: Any) -> None:
    urls = [f"http://host{n}.example.org/{n}" for n in range(10)]
    fetched = crawl(server, urls, allow=frozenset(), connect_to=server.endpoint)
    assert [fetched[index].body for index in range(10)] == [BODY] * 10
    asked = {path: headers["host"].partition(":")[0] for path, headers in server.requests}
    assert asked == {f"/{n}": f"host{n}.example.org" for n in range(10)}


def test_hosts_take_turns_however_the_list_is_sorted(server: Any) -> None:
    urls = [f"http://host{n // 10}.example.org/{n}" for n in range(50)]
    crawl(server, urls, connect_to=server.endpoint, connections=1)
    asked = [headers["host"] for _, headers in server.requests]
    assert all(len(set(asked[start : start + 5])) == 5 for start in range(0, 50, 5))


# The shard's deadline


def test_a_shard_ends_when_its_time_is_over_whatever_its_urls_do(server: Any) -> None:
    paths = ["/silent", "/drip", "/ok"] + ["/silent"] * 40
    started = time.monotonic()
    fetched = crawl(server, [server.url(path) for path in paths], deadline_s=30, shard_deadline_s=0.6, connections=4)
    assert time.monotonic() - started < 2.5
    assert fetched[2].body == BODY
    late = [each for index, each in fetched.items() if index != 2]
    assert {each.reason for each in late} == {Reason.DEADLINE}
    assert any("the shard's 0.6 s are over" in each.detail for each in late)


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    yield
    deadline = time.monotonic() + 5
    while any(thread.name == "fetch" for thread in threading.enumerate()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
