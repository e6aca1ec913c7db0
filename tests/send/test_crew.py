"""The master's decisions, message by message: a runner that keeps what is sent, and a clock that is set."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from replay.send import crew as crews
from replay.send import messages
from replay.send.crew import Crew

CLOCK = {"offset_ns": 0, "error_ns": 0}


class Runner:
    """Locust's, as far as a crew knows it."""

    def __init__(self) -> None:
        self.clients: dict[str, Any] = {}
        self.handlers: dict[str, Any] = {}
        self.sent: list[tuple[str, str]] = []

    def register_message(self, name: str, handler: Any) -> None:
        self.handlers[name] = handler

    def send_message(self, name: str, data: Any, client_id: str) -> None:
        self.sent.append((client_id, name))

    def say(self, node: str, name: str, **data: Any) -> None:
        self.clients.setdefault(node, SimpleNamespace(state="running"))
        self.handlers[name](None, SimpleNamespace(node_id=node, data=data))


class World:
    """A crew of two, its runner, and the time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        self.runner = Runner()
        clock = SimpleNamespace(monotonic=lambda: self.now, time_ns=lambda: int(self.now * 1e9))
        monkeypatch.setattr(crews, "time", clock)
        self.crew = Crew(self.runner)
        self.crew.begin({"capture": ""}, 2, movable=True, stopped=lambda: False)
        self.crew.close()  # the test looks after it by hand

    def join(self, *nodes: str) -> None:
        for node in nodes:
            self.runner.say(node, messages.JOIN, clock=CLOCK)

    def ready(self, *nodes: str) -> None:
        for node in nodes:
            self.runner.say(node, messages.READY)

    def at(self, *nodes: str, idle: bool = False) -> None:
        for node in nodes:
            self.runner.say(node, messages.AT, until=10**9, idle=idle, takes=0, beat=1)

    def wait(self, seconds: float, *saying: str, idle: bool = False) -> None:
        """Time goes by, in which some say how far they are."""
        until = self.now + seconds
        while self.now < until:
            self.now += messages.BEAT_S
            self.at(*saying, idle=idle)
            self.crew.look_after()

    def told(self, node: str) -> list[str]:
        return [name for to, name in self.runner.sent if to == node]


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return World(monkeypatch)


def begun(world: World) -> None:
    world.join("a", "b")
    world.ready("a", "b")
    world.wait(1, "a", "b")


def test_a_worker_that_dies_after_the_end_does_not_hold_up_the_run(world: World) -> None:
    begun(world)
    world.wait(1, "a", "b", idle=True)
    assert messages.END in world.told("a")
    world.runner.say("a", messages.DONE, accounts={})
    assert not world.crew.is_over()
    world.wait(messages.LOST_S + 1, "a")
    assert world.crew.is_over()
    assert world.crew.lost == ("w1",)
    assert messages.TAKE not in world.told("a")  # all had been sent


def test_a_worker_that_is_still_fetching_is_not_taken_for_lost(world: World) -> None:
    begun(world)
    world.join("late")
    world.wait(60, "a", "b")
    assert world.crew.lost == ()
    world.ready("late")
    assert world.told("late") == [messages.JOB, messages.START]
    assert messages.GIVE in world.told("a")
    world.at("late")
    assert world.told("late")[-1] == messages.GRANT


def test_nothing_is_dealt_to_a_worker_that_is_still_fetching(world: World) -> None:
    begun(world)
    world.join("late")
    world.wait(messages.LOST_S + 1, "a")
    assert world.crew.lost == ("w1",)
    assert messages.TAKE in world.told("a")
    assert world.told("late") == [messages.JOB]


def test_a_late_worker_does_not_stand_in_for_one_that_holds_shares(world: World) -> None:
    world.join("a", "b", "late")
    world.ready("a", "late")
    assert not world.crew.started
    world.ready("b")
    assert world.crew.started
    # It came before the start, and gets its part then.
    assert messages.GIVE in world.told("a") + world.told("b")


def test_a_lost_worker_is_told_so_when_it_comes_back(world: World) -> None:
    begun(world)
    world.wait(messages.LOST_S + 1, "a")
    assert world.crew.lost == ("w1",)
    assert messages.TAKE in world.told("a")
    world.at("b")
    assert world.told("b")[-1] == messages.FENCED


def test_a_master_that_was_held_up_hears_its_workers_first(world: World) -> None:
    begun(world)
    world.now += 10
    world.crew.look_after()
    assert world.crew.lost == ()
    world.wait(messages.LOST_S + 1, "a", "b")
    assert world.crew.lost == ()


def test_one_that_fails_before_the_start_starts_nobody(world: World) -> None:
    world.join("a", "b")
    world.runner.say("a", messages.DONE, accounts={}, error="no such capture", exit_code=2)
    assert world.crew.is_over()
    assert world.crew.failed == ("no such capture", 2)
    world.ready("b")
    assert world.told("b") == [messages.JOB, messages.END, messages.END]
    assert not world.crew.started


@pytest.mark.parametrize("how", ["missing", "quit"])
def test_one_that_goes_before_the_start_ends_the_run(world: World, how: str) -> None:
    world.join("a", "b")
    assert not world.crew.is_over()
    if how == "quit":
        del world.runner.clients["b"]
    else:
        world.runner.clients["b"].state = "missing"
    assert world.crew.is_over()
    assert world.crew.failed is not None
    assert "worker w1 went away before the run began" in world.crew.failed[0]


def test_one_that_died_before_this_run_is_nobodys_concern(world: World) -> None:
    world.runner.clients["dead"] = SimpleNamespace(state="missing")
    world.join("a", "b")
    assert not world.crew.is_over()
    world.ready("a", "b")
    assert world.crew.started


def test_a_late_worker_that_fails_is_left_out(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    begun(world)
    world.join("late")
    world.runner.say("late", messages.DONE, accounts={}, error="no such capture", exit_code=2)
    assert world.crew.failed is None
    assert messages.END not in world.told("a")
    assert "worker w2 takes no part: no such capture" in capsys.readouterr().err
    world.wait(1, "a", "b", idle=True)
    assert messages.END in world.told("a")


def test_who_ends_early_leaves_its_part_to_the_others(world: World) -> None:
    begun(world)
    world.runner.say("b", messages.DONE, accounts={"/run": {"interrupted": True}})
    assert world.told("a")[-1] == messages.TAKE
    assert world.crew.lost == ("w1",)


def test_trips_are_told_to_those_that_come_later(world: World) -> None:
    begun(world)
    world.runner.say("a", messages.TRIP, group="GET /x")
    assert world.told("b")[-1] == messages.TRIP
    world.join("late")
    world.ready("late")
    assert world.told("late") == [messages.JOB, messages.START, messages.TRIP]


def test_a_worker_of_another_run_is_sent_home(world: World) -> None:
    world.ready("stranger")
    assert world.told("stranger") == [messages.END]
    world.runner.say("stranger", messages.GIVEN, to="w0", shares=[1], key=5)
    world.runner.say("stranger", messages.DONE, accounts={})
    begun(world)
