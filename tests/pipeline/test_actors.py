"""Objects in processes of their own answer whatever happens to the processes, or it is said which one cannot."""

import os
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from pipeline.actors import Actors
from pipeline.errors import InputError, NotOpened
from pipeline.stage import Resources

pytestmark = pytest.mark.usefixtures("ray_cluster")
SMALL = Resources(cpus=0.1, memory_gib=0.1)


@dataclass(frozen=True)
class Adder:
    """folder: where its deaths are counted."""

    number: int
    folder: Path

    def add(self, other: int) -> int:
        return self.number + other

    def die_twice(self) -> int:
        before = len(list(self.folder.iterdir()))
        if before < 2:
            (self.folder / f"death {before}").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return self.number

    def refuse(self) -> None:
        raise InputError(f"{self.number} is not to my taste")


def never_made() -> Adder:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


@pytest.fixture(scope="module")
def adders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Actors]:
    folder = tmp_path_factory.mktemp("adders")
    makers = {f"adder {number}": partial(Adder, number, folder) for number in (1, 2, 3)}
    actors = Actors(makers, SMALL)
    yield actors
    actors.close()


def test_each_object_is_asked_and_kept(adders: Actors) -> None:
    questions = {"adder 1": (10,), "adder 3": (20,)}
    assert adders.call("add", questions) == {"adder 1": 11, "adder 3": 23}
    once = adders.whereabouts()
    assert adders.call("add", questions) == {"adder 1": 11, "adder 3": 23}
    twice = adders.whereabouts()
    assert {name: twice[name].calls - once[name].calls for name in once} == {"adder 1": 1, "adder 2": 0, "adder 3": 1}
    assert {place.process for place in twice.values()} == {place.process for place in once.values()}


def test_a_process_that_died_between_calls_is_started_again(adders: Actors) -> None:
    killed = adders.whereabouts()["adder 2"].process
    os.kill(killed, signal.SIGKILL)
    assert adders.call("add", {"adder 1": (1,), "adder 2": (1,)}) == {"adder 1": 2, "adder 2": 3}
    assert adders.whereabouts()["adder 2"].process != killed


def test_a_process_that_dies_in_a_call_is_asked_again(adders: Actors) -> None:
    assert adders.call("die_twice", {"adder 1": ()}) == {"adder 1": 1}


def test_an_object_that_cannot_be_made_is_named_after_as_many_deaths_as_allowed(tmp_path: Path) -> None:
    actors = Actors({"well": partial(Adder, 1, tmp_path), "ill": never_made}, SMALL, most_deaths=2)
    with pytest.raises(NotOpened, match="ill is given up: its process died 2 times during one call. ActorDiedError"):
        actors.call("add", {"well": (1,), "ill": (1,)})
    assert actors.call("add", {"well": (1,)}) == {"well": 2}
    actors.close()


def test_what_finds_no_room_is_named_with_what_it_needs_and_what_there_is(tmp_path: Path) -> None:
    actors = Actors({"large": partial(Adder, 1, tmp_path)}, Resources(gpus=7), placing_s=0.5)
    with pytest.raises(NotOpened, match=r"large found no room in 0.5 s. It needs .*'num_gpus': 7.* there is free"):
        actors.call("add", {"large": (1,)})
    actors.close()


def test_an_error_for_a_person_comes_as_it_was_raised(adders: Actors) -> None:
    with pytest.raises(InputError, match="^2 is not to my taste$"):
        adders.call("refuse", {"adder 2": ()})


def test_threads_may_share_them_while_processes_die(adders: Actors) -> None:
    answers: list[int] = []

    def ask() -> None:
        answers.extend(adders.call("add", {"adder 1": (n,)})["adder 1"] for n in range(30))

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    os.kill(adders.whereabouts()["adder 1"].process, signal.SIGKILL)
    for thread in threads:
        thread.join()
    assert sorted(answers) == sorted(3 * [1 + n for n in range(30)])
