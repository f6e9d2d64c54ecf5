"""A crawl that goes bad stops: nothing is committed of a shard that reaches nobody, and the list is not burnt."""

import pickle
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import InputError
from pipeline.executor import LocalExecutor
from pipeline.run import Run, RunReport
from stages.download import Download, DownloadRecipe, check_urls
from stages.download.health import ShardUnhealthy
from stages.ingest import IngestRecipe, ingest_stages, sample_urls
from tests.ports import free_ports

PATIENCE = {"deadline_s": 2, "retries": 0, "connections_per_host": 32}


@pytest.fixture
def nobody() -> str:
    """host:port where nobody listens."""
    return f"127.0.0.1:{free_ports(1)[0]}"


def lists(tmp_path: Path, urls: list[str]) -> IngestRecipe:
    path = tmp_path / "urls.tsv"
    path.write_text("".join(f"caption {n}\t{url}\n" for n, url in enumerate(urls)))
    source = {"name": "web", "preset": "cc3m", "files": [str(path)]}
    return IngestRecipe.model_validate({"shard_size": 60, "sources": [source]})


def crawl(tmp_path: Path, urls: list[str], **settings: Any) -> RunReport:
    ingest = lists(tmp_path, urls)
    download = Download(DownloadRecipe(**PATIENCE, **settings))
    return Run(str(tmp_path / "root"), [*ingest_stages(ingest), download]).execute(LocalExecutor())


def commits(tmp_path: Path) -> int:
    return len(list((tmp_path / "root" / "download" / "commits").glob("*.json")))


def test_a_dead_network_stops_the_run_before_its_list_is_burnt(tmp_path: Path, nobody: str) -> None:
    report = crawl(tmp_path, [f"http://{nobody}/{n}" for n in range(1200)], allow=frozenset({nobody}))
    assert report.exit_code == 1
    assert "of the last 180 urls 0.0% gave a picture" in report.stopped
    assert "connection 180" in report.stopped
    assert "download.min_success" in report.stopped
    assert commits(tmp_path) == 0


def test_a_wall_of_refusals_stops_the_run_too(tmp_path: Path, server: Any) -> None:
    report = crawl(tmp_path, [server.url("/status?n=403")] * 600, allow=frozenset({server.endpoint}))
    assert (report.exit_code, commits(tmp_path)) == (1, 3)
    assert "http_client_error 180" in report.stopped


def test_a_shard_that_fails_for_the_time_being_alone_is_a_failed_shard(
    tmp_path: Path, server: Any, nobody: str
) -> None:
    urls = [server.url("/bytes?n=0")] * 60 + [f"http://{nobody}/"] * 60 + [server.url("/bytes?n=0")] * 60
    allow = frozenset({server.endpoint, nobody})
    report = crawl(tmp_path, urls, allow=allow, min_success=0)
    assert (report.exit_code, report.stopped, commits(tmp_path)) == (1, "", 2)
    (cause,) = report.failed.values()
    assert "connection 60: of 60 urls 0 were fetched, so nothing is committed" in cause
    assert crawl(tmp_path, urls, allow=allow, min_success=0, max_transient=1).exit_code == 0


def test_a_large_shard_is_given_up_early(tmp_path: Path, server: Any, nobody: str) -> None:
    urls = [f"http://{nobody}/{n}" for n in range(500)] + [server.url("/silent")] * 100
    ingest = lists(tmp_path, urls).model_copy(update={"shard_size": 600})
    download = Download(DownloadRecipe(**PATIENCE, allow=frozenset({server.endpoint, nobody}), connections=64))
    stages = [*ingest_stages(ingest), download]
    report = Run(str(tmp_path / "root"), stages).execute(LocalExecutor())
    assert "of 500 urls 0 were fetched" in str(report)


def test_one_large_host_that_asks_for_patience_fails_no_shard(tmp_path: Path, server: Any, other_server: Any) -> None:
    urls = [server.url(f"/flaky/{n}?n=503&after=3600") for n in range(700)] + [other_server.url("/bytes?n=9")] * 300
    ingest = lists(tmp_path, urls).model_copy(update={"shard_size": 1000})
    allow = frozenset({server.endpoint, other_server.endpoint})
    download = Download(DownloadRecipe(**PATIENCE, allow=allow, min_success=0, connections=4))
    report = Run(str(tmp_path / "root"), [*ingest_stages(ingest), download]).execute(LocalExecutor())
    assert (report.exit_code, commits(tmp_path)) == (0, 1)


def test_the_fault_crosses_processes_whole() -> None:
    fault = pickle.loads(pickle.dumps(ShardUnhealthy(100, 3, {"dns": 97})))
    assert (fault.urls, fault.good, fault.reasons, str(fault)[:7]) == (100, 3, {"dns": 97}, "dns 97:")


def test_the_check_before_a_start_says_what_to_expect(tmp_path: Path, server: Any) -> None:
    ingest = lists(tmp_path, [server.url("/status?n=404"), server.url("/ok")] * 30 + ["nonsense"] * 10)
    urls = sample_urls(ingest, 20)
    assert len(urls) == 20
    assert sample_urls(ingest, 0) == []  # download.check_urls=0: no check
    recipe = DownloadRecipe(**PATIENCE, allow=frozenset({server.endpoint}), min_success=0)
    told = check_urls(urls, recipe)  # what the server says is no picture
    assert "of 20 urls" in told.lower()
    assert "http_client_error" in told
    assert "expect 0% to 16%" in told


def test_nothing_starts_where_nobody_is_reached(tmp_path: Path, nobody: str) -> None:
    recipe = DownloadRecipe(**PATIENCE, allow=frozenset({nobody}))
    with pytest.raises(InputError, match=r"connection 30.*download\.min_success asks for 20%.*download\.check_urls=0"):
        check_urls([f"http://{nobody}/"] * 30, recipe)


def test_pictures_on_disk_need_no_check() -> None:
    assert check_urls([], DownloadRecipe()) == ""


def test_the_check_can_be_left_out(tmp_path: Path) -> None:
    assert sample_urls(lists(tmp_path, ["http://a.org/1"]), 0) == []
