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

    def told(self, node: str) -> list[str]:
        return [name for to, name in self.runner.sent if to == node]


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return World(monkeypatch)


def test_a_worker_that_dies_after_the_end_does_not_hold_up_the_run(world: World) -> None:
    world.join("a", "b")
    world.ready("a", "b")
    world.at("a", "b", idle=True)
    world.crew.look_after()
    assert world.told("a")[-1] == messages.END
    world.runner.say("a", messages.DONE, accounts={})
    assert not world.crew.is_over()
    world.now += messages.LOST_S + 1
    world.crew.look_after()
    assert world.crew.is_over()
    assert world.crew.lost == ("w1",)
    assert messages.TAKE not in world.told("a")  # all had been sent


def test_a_worker_that_is_still_fetching_is_not_taken_for_lost(world: World) -> None:
    world.join("a", "b")
    world.ready("a", "b")
    world.join("late")
    world.now += 60
    world.at("a", "b")
    world.crew.look_after()
    assert world.crew.lost == ()
    world.ready("late")
    assert world.told("late") == [messages.JOB, messages.START]
    assert messages.GIVE in world.told("a")
    world.at("late")
    assert world.told("late")[-1] == messages.GRANT


def test_a_late_worker_does_not_stand_in_for_one_that_holds_shares(world: World) -> None:
    world.join("a", "b", "late")
    world.ready("a", "late")
    assert not world.crew.started
    world.ready("b")
    assert world.crew.started
    assert messages.GIVE in world.told("a") + world.told(
        "b"
    )  # it came before the start, and gets its part then


def test_a_lost_worker_is_told_so_when_it_comes_back(world: World) -> None:
    world.join("a", "b")
    world.ready("a", "b")
    world.at("a", "b")
    world.now += messages.LOST_S + 1
    world.at("a")
    world.crew.look_after()
    assert world.crew.lost == ("w1",)
    assert world.told("a")[-1] == messages.TAKE
    world.at("b")
    assert world.told("b")[-1] == messages.FENCED
