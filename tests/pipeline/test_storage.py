"""Exactly one of several writers creates a record, and a put file is whole; on a disk and through fsspec."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pipeline.errors import RecipeError
from pipeline.storage import LocalStore, ObjectStore, Store, open_store


@pytest.fixture(params=["local", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    if request.param == "local":
        yield open_store(str(tmp_path / "store"))
        return
    import fsspec

    fsspec.filesystem("memory").store.clear()
    yield open_store("memory://bucket/store")


def test_of_many_writers_exactly_one_creates_a_record(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
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
    ["s3://AKIAKEY:hunter2@bucket/root", "s3://KEY:hun/ter2@bucket/root", "simplecache::s3://KEY:hunter2@bucket/root"],
)
def test_a_url_with_credentials_is_refused_without_repeating_them(url: str) -> None:
    with pytest.raises(RecipeError) as error:
        open_store(url)
    assert "ter2" not in str(error.value)


def test_a_url_with_an_at_sign_in_its_path_is_no_secret() -> None:
    assert open_store("memory://bucket/a:b@c").root.endswith("a:b@c")


def test_the_kind_of_store_follows_the_url(tmp_path: Path) -> None:
    assert isinstance(open_store(str(tmp_path)), LocalStore)
    assert isinstance(open_store(f"file://{tmp_path}"), LocalStore)
    assert isinstance(open_store("memory://x"), ObjectStore)
