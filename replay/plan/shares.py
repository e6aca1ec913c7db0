"""Who sends what when several workers share a run: many shares of the sessions, few workers, and how shares move.

A share is a hash of the session (`replay.plan.dispatch.share_of`). Each worker sends its shares' arrivals from some
key on; keys are due instants, or, where everything is due at once, places in the plan. A worker may only send what is
before its limit, which it is granted a little at a time. So whatever a worker did that nobody has heard of since: from
its limit on, nobody has sent anything, and another worker may. This keeps a moved arrival from being sent twice.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from itertools import pairwise

SHARES_EACH = 16
"""Shares for each worker that is expected: a lost worker's are dealt out evenly to up to that many others."""

Holding = tuple[int, int]
"""A share, and the key from which on it is held."""


def part_of(whole: int, held: Collection[int], shares: int) -> int:
    """What of a whole number belongs to some of so many shares: the parts of all shares add up to the whole."""
    return sum(unit * shares // whole in held for unit in range(whole))


@dataclass(slots=True)
class _Member:
    limit: int = 0
    shares: dict[int, int] = field(default_factory=dict)


@dataclass(slots=True)
class Deal:
    """The shares of a run and who holds them. Workers are known by their names."""

    count: int
    _members: dict[str, _Member] = field(default_factory=dict)
    _moving: set[int] = field(default_factory=set)
    lost: set[str] = field(default_factory=set)

    def open(self, workers: Iterable[str]) -> None:
        """Deal all shares out to the first workers, evenly: neighbours to one worker, for they lie together on disk."""
        names = list(workers)
        edges = [number * self.count // len(names) for number in range(len(names) + 1)]
        for name, (first, end) in zip(names, pairwise(edges), strict=True):
            self._members[name] = _Member(0, dict.fromkeys(range(first, end), 0))

    def holdings(self, worker: str) -> list[Holding]:
        """What a worker holds."""
        member = self._members.get(worker)
        return sorted(member.shares.items()) if member else []

    def join(self, worker: str) -> None:
        """A worker that has come late: it holds nothing yet."""
        self._members.setdefault(worker, _Member())

    def grant(self, worker: str, limit: int) -> int:
        """Let a worker send what is before `limit`; returns how far it may go, which never shrinks."""
        member = self._members[worker]
        member.limit = max(member.limit, limit)
        return member.limit

    def lose(self, worker: str) -> dict[str, list[Holding]]:
        """A worker is lost: who takes which of its shares, from where on. Empty where nobody is left."""
        member = self._members.pop(worker, None)
        if member is None:
            return {}
        self.lost.add(worker)
        takes: dict[str, list[Holding]] = {}
        for share, since in sorted(member.shares.items()):
            self._moving.discard(share)
            taker = self._least()
            if taker is not None:
                # What it may have sent is not sent again; what it cannot have sent is.
                self._hold(taker, share, max(since, member.limit))
                takes.setdefault(taker, []).append((share, max(since, member.limit)))
        return takes

    def wanted_by(self, worker: str) -> dict[str, list[int]]:
        """What others should give up to a worker that holds less than they do: their names, and which shares."""
        fair = self.count // max(1, len(self._members))
        short = fair - len(self._members[worker].shares)
        gives: dict[str, list[int]] = {}
        while short > 0:
            giver = max(
                self._members, key=lambda name: (len(self._free(name)) - len(gives.get(name, ())), name)
            )
            free = [share for share in self._free(giver) if share not in gives.get(giver, ())]
            if giver == worker or len(free) <= fair:
                break
            gives.setdefault(giver, []).append(free[-1])
            short -= 1
        for shares in gives.values():
            self._moving.update(shares)
        return gives

    def move(self, giver: str, taker: str, shares: Collection[int], key: int) -> tuple[str, list[Holding]]:
        """The giver has agreed to send nothing of these shares from `key` on: who holds them there, and from where.

        That is the taker, or the giver again where the taker has been lost meanwhile. Nobody where the giver has been
        lost, for then they have been dealt anew.
        """
        self._moving.difference_update(shares)
        if giver not in self._members:
            return taker, []
        holder = taker if taker in self._members else giver
        mine = self._members[giver].shares
        # What was taken over from a lost worker may begin later.
        moved = [(share, max(key, mine.pop(share))) for share in shares if share in mine]
        for share, since in moved:
            self._hold(holder, share, since)
        return holder, moved

    def _free(self, worker: str) -> list[int]:
        return sorted(self._members[worker].shares.keys() - self._moving)

    def _least(self) -> str | None:
        return min(self._members, key=lambda name: (len(self._members[name].shares), name), default=None)

    def _hold(self, worker: str, share: int, key: int) -> None:
        self._members[worker].shares[share] = key
