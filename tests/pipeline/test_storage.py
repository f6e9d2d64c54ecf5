"""Exactly one of several writers creates a record, and a put file is whole; on a disk, through fsspec, and on S3."""

import errno
import hashlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest

from pipeline import object_store
from pipeline.credentials import redact
from pipeline.errors import InputError, RecipeError, StorageError
from pipeline.object_store import ObjectStore
from pipeline.storage import LocalStore, Store, open_store
from tests.s3 import ACCESS_KEY, SECRET, environment, make_bucket, reached_from_here, s3_server


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with s3_server() as url:
        make_bucket(url, "bucket")
        yield url


@pytest.fixture
def s3(endpoint: str, tmp_path: Path) -> Iterator[ObjectStore]:
    with reached_from_here(endpoint, tmp_path / "cache"):
        store = open_store(f"s3://bucket/{tmp_path.name}")
        assert isinstance(store, ObjectStore)
        yield store


@pytest.fixture(params=["local", "memory", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "local":
        return open_store(str(tmp_path / "store"))
    if request.param == "s3":
        s3: ObjectStore = request.getfixturevalue("s3")
        return s3
    import fsspec

    fsspec.filesystem("memory").store.clear()
    return open_store("memory://bucket/store")


@pytest.mark.parametrize("store", ["local", "s3"], indirect=True)
def test_of_many_writers_exactly_one_creates_a_record(store: Store) -> None:
    with ThreadPoolExecutor(8) as pool:
        for n in range(20):
            won = list(pool.map(lambda writer, n=n: store.create(f"r/{n}", bytes([writer])), range(8)))
            assert won.count(True) == 1
            assert store.read(f"r/{n}") == bytes([won.index(True)])
    assert set(store.list("r")) == {str(n) for n in range(20)}


def test_a_listing_beside_writers_shows_whole_files_only(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    with ThreadPoolExecutor(2) as pool:
        writing = pool.submit(lambda: [store.create(f"r/{n}", b"whole") for n in range(300)])
        while not writing.done():
            assert set(store.list("r").values()) <= {5}


def test_what_was_put_is_read_back_listed_and_deleted(store: Store) -> None:
    with store.scratch() as folder:
        for name in ("a", "b"):
            (folder / name).write_bytes(name.encode() * 3)
        store.put({folder / "a": "data/x/a", folder / "b": "data/b"})
    assert store.list("data") == {"x/a": 3, "b": 3}
    assert store.read("data/x/a") == b"aaa"
    with store.open("data/b") as file:
        file.seek(1)
        assert file.read() == b"bb"
    store.delete(["data/b", "data/never there"])
    assert store.size("data/b") is None
    assert store.list("nothing here") == {}


def test_a_write_takes_the_place_of_what_was_there(store: Store) -> None:
    for content in (b"first", b"second"):
        store.write("recipe.yaml", content)
        assert store.read("recipe.yaml") == content
    assert set(store.list("")) == {"recipe.yaml"}  # nothing is left of the first


def test_a_second_create_leaves_the_first_content(store: Store) -> None:
    assert store.create("plan.json", b"first")
    assert not store.create("plan.json", b"second")
    assert store.read("plan.json") == b"first"


@pytest.mark.parametrize(
    "url",
    [
        "s3://AKIAKEY:hunter2@bucket/root",
        "s3://KEY:hun/ter2@bucket/root",
        "s3://KEY:hun@ter2@bucket/root",
        "simplecache::s3://KEY:hunter2@bucket/root",
        "https://ghp_hunter2@host/root",
        "https://host/root?X-Amz-Expires=60&X-Amz-Signature=hunter2",
        "https://account.blob.example/root?sv=1&sig=hunter2",
    ],
)
def test_a_url_with_credentials_is_refused_and_redacted(url: str) -> None:
    with pytest.raises(RecipeError) as error:
        open_store(url)
    assert "ter2" not in str(error.value)
    assert "ter2" not in redact(f"{url} and {{'root': '{url}', 'note': 'x@y'}} is wrong")


@pytest.mark.parametrize("text", ["s3://bucket/a@b", "memory://bucket/a:b@c", "https://host/list.tsv?page=2", "x: a@b"])
def test_what_is_no_secret_stays_readable(text: str) -> None:
    assert redact(text) == text


def test_a_url_with_an_at_sign_in_its_path_is_no_secret() -> None:
    assert open_store("memory://bucket/a:b@c").root.endswith("a:b@c")


def test_the_kind_of_store_follows_the_url(tmp_path: Path) -> None:
    assert isinstance(open_store(str(tmp_path)), LocalStore)
    assert isinstance(open_store(f"file://{tmp_path}"), LocalStore)
    assert isinstance(open_store("memory://x"), ObjectStore)


# ── object stores ──


def test_what_another_client_has_just_written_is_seen_at_once(s3: ObjectStore, endpoint: str) -> None:
    assert s3.list("commits") == {}
    assert s3.size("commits/1") is None
    url = f"{endpoint}/{s3.root.removeprefix('s3://')}/commits/1"
    urlopen(Request(url, b"winner", {"Content-Type": "application/json"}, method="PUT"), timeout=10).close()
    assert s3.list("commits") == {"1": 6}
    assert not s3.create("commits/1", b"loser")
    assert s3.read("commits/1") == b"winner"


@pytest.mark.slow
def test_a_listing_has_as_many_keys_as_there_are(s3: ObjectStore) -> None:
    names = {f"{n:04d}" for n in range(1100)}  # a page of S3 has 1,000
    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(lambda name: s3.create(f"commits/{name}", b"1"), names))
    assert s3.list("commits").keys() == names
    s3.delete(f"commits/{name}" for name in sorted(names)[50:100])
    assert len(s3.list("commits")) == 1050


def test_any_part_of_a_file_is_read_as_it_was_put(store: Store) -> None:
    content = os.urandom(9 << 20)
    with store.scratch() as folder:
        (folder / "a").write_bytes(content)
        store.put({folder / "a": "data/a"})
    with store.open("data/a") as file:
        for start, size in [
            (0, 10),
            (2_500_000, 4_900_000),
            (5, 0),
            ((4 << 20) - 6, 20),
            (len(content) - 3, 99),
            (7, -1),
        ]:
            file.seek(start)
            assert file.read(size) == content[start : None if size < 0 else start + size]
        assert file.seek(-5, os.SEEK_END) == len(content) - 5
        assert file.read() == content[-5:]
    with pytest.raises(FileNotFoundError):
        store.open("data/b")


def test_an_empty_file_is_read_as_empty(store: Store) -> None:
    store.write("empty", b"")
    assert (store.read("empty"), store.size("empty")) == (b"", 0)
    with store.open("empty") as file:
        assert file.read() == b""


def test_a_file_to_map_is_fetched_once_and_shared(s3: ObjectStore) -> None:
    name = hashlib.sha256(b"vectors").hexdigest()
    s3.write("data/a.npy", b"vectors")
    with ThreadPoolExecutor(8) as pool:
        (path,) = set(pool.map(lambda _: s3.local("data/a.npy", name), range(8)))
    assert path.name == f"{name}.npy"
    s3.delete(["data/a.npy"])
    assert s3.local("data/a.npy", name).read_bytes() == b"vectors"


def test_what_a_dead_process_left_in_the_cache_is_not_used(s3: ObjectStore) -> None:
    name = hashlib.sha256(b"vectors").hexdigest()
    s3.write("data/a.npy", b"vectors")
    folder = object_store.CACHE_DIR / name[:2]
    folder.mkdir(parents=True)
    for left in (".part", ".lock"):
        (folder / f"{name}{left}").write_bytes(b"half of another file, and longer")
    assert s3.local("data/a.npy", name).read_bytes() == b"vectors"


def test_a_file_that_is_not_what_its_record_says_is_refused_and_not_kept(s3: ObjectStore) -> None:
    name = hashlib.sha256(b"vectors").hexdigest()
    s3.write("data/a.npy", b"victors")
    with pytest.raises(InputError, match="data/a.npy is not what its record says"):
        s3.local("data/a.npy", name)
    s3.write("data/a.npy", b"vectors")
    assert s3.local("data/a.npy", name).read_bytes() == b"vectors"


def test_a_client_stays_in_its_process_when_its_store_is_sent_away(s3: ObjectStore) -> None:
    import pickle

    s3.write("a", b"1")
    sent = pickle.dumps(s3)
    assert b"s3fs" not in sent
    assert pickle.loads(sent).read("a") == b"1"


@pytest.fixture(scope="module")
def answering() -> Iterator[str]:
    """A server that answers by the bucket's name: `500-InternalError`, say."""

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            status, code = self.path.split("/")[1].split("?")[0].split("-")
            if code == "PreconditionFailed" and self.command == "HEAD":
                status = "200"
            body = f"<Error><Code>{code}</Code><Message>of {code}</Message></Error>".encode()
            self.send_response(int(status))
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_GET = do_HEAD = do_PUT = do_DELETE = answer

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture
def talking(answering: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    with reached_from_here(answering, tmp_path):
        monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
        yield monkeypatch


@pytest.mark.parametrize("bucket", ["500-InternalError", "503-SlowDown"])
def test_a_store_that_does_not_answer_stops_the_run_and_says_where(bucket: str, talking: pytest.MonkeyPatch) -> None:
    store = ObjectStore(f"s3://{bucket}/root", patience_s=0.1)
    with pytest.raises(StorageError, match=f"s3://{bucket}/root/plan.json .*the same command continues") as error:
        store.create("plan.json", b"")
    assert SECRET not in str(error.value)


@pytest.mark.parametrize("bucket", ["403-AccessDenied", "404-NoSuchBucket", "400-InvalidBucketName", "not a bucket"])
def test_a_refusal_is_said_at_once(bucket: str, talking: pytest.MonkeyPatch) -> None:
    store = ObjectStore(f"s3://{bucket}/root", patience_s=1e6)
    with pytest.raises(RecipeError, match="s3://.*/root/plan.json") as error:
        store.create("plan.json", b"")
    assert SECRET not in str(error.value)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """With keys to somebody's own account, for AWS's clients and for fsspec."""
    for name, text in {
        ".aws/credentials": "[default]\naws_access_key_id = OWN\naws_secret_access_key = OWN\n",
        ".config/fsspec/s3.json": '{"s3": {"key": "OWN", "secret": "OWN"}}',
    }.items():
        (tmp_path / "home" / name).parent.mkdir(parents=True)
        (tmp_path / "home" / name).write_text(text)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def test_missing_credentials_are_said_at_once(home: Path, talking: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        talking.delenv(name)
    with pytest.raises(RecipeError, match="credentials"):
        ObjectStore("s3://bucket/root", patience_s=1e6).size("plan.json")


def test_processes_that_the_tests_start_know_nothing_of_the_keys_at_home(home: Path, tmp_path: Path) -> None:
    code = "import fsspec, botocore.session as s; print(s.Session().get_credentials(), fsspec.config.conf.get('s3'))"
    given = environment("http://127.0.0.1:1", tmp_path)
    without_keys = {name: value for name, value in given.items() if value not in (ACCESS_KEY, SECRET)}
    for settings, are_found in ((without_keys, False), ({"HOME": str(home)}, True)):
        said = subprocess.run([sys.executable, "-c", code], env=settings, capture_output=True, text=True, check=True)
        assert ["None" not in found for found in said.stdout.split(maxsplit=1)] == [are_found] * 2


def test_a_store_that_does_not_say_which_condition_failed_has_the_record(talking: pytest.MonkeyPatch) -> None:
    assert not ObjectStore("s3://412-PreconditionFailed/root").create("plan.json", b"")


def _register(name: str, kind: type) -> None:
    import fsspec

    kind.protocol = name  # type: ignore[attr-defined]
    fsspec.register_implementation(name, kind, clobber=True)


@pytest.fixture
def faults() -> dict[str, list[BaseException]]:
    """Of the protocol flaky://, a file system in memory: method → the errors that its next calls meet."""
    from fsspec.implementations.memory import MemoryFileSystem

    planned: dict[str, list[BaseException]] = {}

    class Flaky(MemoryFileSystem):  # type: ignore[misc]
        def __getattribute__(self, name: str) -> Any:
            if planned.get(name):
                raise planned[name].pop()
            return super().__getattribute__(name)

    _register("flaky", Flaky)
    return planned


class Gone(Exception):
    """As a client's own class: no OSError."""


@pytest.mark.parametrize("error", [OSError(errno.EBUSY, "slow down"), Gone()])
def test_what_fails_in_passing_is_asked_for_again(
    error: Exception, faults: dict[str, list[BaseException]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(object_store, "CACHE_DIR", tmp_path / "cache")
    store = ObjectStore(f"flaky://bucket/{tmp_path.name}")
    (tmp_path / "a").write_bytes(b"vectors")
    faults |= {name: [error] for name in ("pipe_file", "put_file", "info", "find", "cat_file", "get_file", "rm_file")}
    assert store.create("plan.json", b"{}")
    store.put({tmp_path / "a": "data/a"})
    assert store.size("data/a") == 7
    assert store.list("data") == {"a": 7}
    with store.open("data/a") as file:
        assert file.read() == b"vectors"
    assert store.local("data/a", hashlib.sha256(b"vectors").hexdigest()).read_bytes() == b"vectors"
    store.delete(["data/a"])
    assert store.size("data/a") is None
    assert not any(faults.values())


def test_a_fault_of_the_program_is_not_asked_for_again(faults: dict[str, list[BaseException]]) -> None:
    faults["info"] = [TypeError("no such argument")]
    with pytest.raises(TypeError):
        ObjectStore("flaky://bucket/root").size("a")
    assert not faults["info"]


def test_a_file_that_does_not_fit_in_the_cache_is_refused_before_it_is_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fsspec.implementations.memory import MemoryFileSystem

    class Vast(MemoryFileSystem):  # type: ignore[misc]
        def info(self, path: str, **kwargs: Any) -> dict[str, Any]:
            return {"name": path, "size": 1 << 60, "type": "file"}

    _register("vast", Vast)
    monkeypatch.setattr(object_store, "CACHE_DIR", tmp_path)
    with pytest.raises(StorageError, match="needs 1,152,921,504,606,846,976 bytes .*set REVILM_CACHE"):
        open_store("vast://bucket/root").local("data/index", "ab" * 32)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
@pytest.mark.parametrize("root", ["{}", "memory://bucket"])
def test_a_full_disk_stops_the_run_and_says_how_much_is_free(root: str, tmp_path: Path) -> None:
    store = open_store(root.format(tmp_path))
    with pytest.raises(StorageError, match="bytes are free.*the same command continues"), store.scratch():
        Path("/dev/full").write_bytes(b"a shard")


def test_another_fault_of_a_disk_is_left_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="Input/output error"), open_store(str(tmp_path)).scratch():
        raise OSError(errno.EIO, os.strerror(errno.EIO))


def test_an_unknown_protocol_is_said_at_once() -> None:
    with pytest.raises(RecipeError, match="nowhere://bucket cannot be opened"):
        open_store("nowhere://bucket").size("plan.json")
