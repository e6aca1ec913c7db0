"""However workers come, give, take and get lost: no arrival is anybody's twice."""

from __future__ import annotations

import itertools
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from replay.plan.shares import Deal, part_of


@given(st.integers(0, 300), st.integers(1, 6), st.booleans(), st.randoms())
def test_parts_of_a_ceiling_add_up_to_it(whole: int, workers: int, moved: bool, draw: Any) -> None:
    """Whoever holds which shares: together they have what was allowed, no more and no less."""
    shares = list(range(16 * workers))
    if moved:
        draw.shuffle(shares)
    parts = [part_of(whole, set(shares[16 * n : 16 * (n + 1)]), len(shares)) for n in range(workers)]
    assert sum(parts) == whole
    assert moved or max(parts) - min(parts) <= 1


def held(deal: Deal, *names: str) -> dict[int, list[str]]:
    found: dict[int, list[str]] = {}
    for name in names:
        for share, _ in deal.holdings(name):
            found.setdefault(share, []).append(name)
    return found


def test_all_shares_are_dealt_evenly() -> None:
    deal = Deal(32)
    deal.open(["a", "b", "c"])
    assert sorted(len(deal.holdings(name)) for name in "abc") == [10, 11, 11]
    assert held(deal, "a", "b", "c").keys() == set(range(32))


def test_what_a_lost_worker_cannot_have_sent_is_the_others() -> None:
    deal = Deal(9)
    deal.open(["a", "b", "c"])
    assert deal.grant("b", 500) == 500
    assert deal.grant("b", 300) == 500  # an older wish came late
    takes = deal.lose("b")
    assert sorted(share for taken in takes.values() for share, _ in taken) == [3, 4, 5]
    assert {key for taken in takes.values() for _, key in taken} == {500}
    assert sorted(map(len, takes.values())) == [1, 2]
    assert deal.lose("b") == {}


def test_nobody_is_left() -> None:
    deal = Deal(4)
    deal.open(["a"])
    assert deal.lose("a") == {}
    assert deal.lost == {"a"}


def test_a_late_worker_gets_a_fair_part() -> None:
    deal = Deal(32)
    deal.open(["a", "b"])
    deal.join("c")
    gives = deal.wanted_by("c")
    assert sum(map(len, gives.values())) == 10
    assert set(gives) == {"a", "b"}
    assert deal.wanted_by("c") == {} or sum(map(len, deal.wanted_by("c").values())) <= 0
    for giver, shares in gives.items():
        assert deal.move(giver, "c", shares, 900) == ("c", [(share, 900) for share in shares])
    assert len(deal.holdings("c")) == 10
    assert all(len(names) == 1 for names in held(deal, "a", "b", "c").values())


def test_a_giver_that_is_lost_before_it_agreed_gives_nothing() -> None:
    deal = Deal(8)
    deal.open(["a", "b"])
    deal.join("c")
    gives = deal.wanted_by("c")
    deal.lose("a")
    assert deal.move("a", "c", gives["a"], 100) == ("c", [])
    assert held(deal, "b", "c").keys() == set(range(8))


def test_what_was_taken_over_is_given_up_no_earlier_than_it_began() -> None:
    deal = Deal(2)
    deal.open(["a", "b"])
    deal.grant("b", 500)
    deal.lose("b")
    deal.join("c")
    assert deal.move("a", "c", [0, 1], 100) == ("c", [(0, 100), (1, 500)])


def test_what_was_given_up_for_a_worker_that_is_lost_comes_back() -> None:
    deal = Deal(8)
    deal.open(["a", "b"])
    deal.join("c")
    gives = deal.wanted_by("c")
    deal.lose("c")
    assert deal.move("a", "c", gives["a"], 100) == ("a", [(share, 100) for share in gives["a"]])
    assert held(deal, "a", "b").keys() == set(range(8))


Steps = st.lists(
    st.tuples(
        st.sampled_from(["grant", "lose", "join", "give", "lost"]), st.integers(0, 5), st.integers(1, 50)
    )
)


@given(Steps)
def test_no_key_of_a_share_is_held_twice(steps: Any) -> None:
    """Each worker sends a share from where it holds it up to where it gave it up, or up to its limit when lost."""
    deal, clock = Deal(12), 0
    names = ["w0", "w1"]
    deal.open(names)
    living = set(names)
    since = {(name, share): key for name in names for share, key in deal.holdings(name)}
    spans: dict[int, list[tuple[int, int]]] = {share: [] for share in range(12)}
    limits = dict.fromkeys(names, 0)

    def end(name: str, share: int, key: int) -> None:
        spans[share].append((since.pop((name, share)), key))

    def lose(name: str) -> None:
        for share, key in deal.holdings(name):
            end(name, share, max(key, limits[name]))
        for taker, taken in deal.lose(name).items():
            since.update({(taker, share): key for share, key in taken})

    for what, number, more in steps:
        name = f"w{number}"
        if what == "join" and name not in names:
            names.append(name)
            living.add(name)
            limits[name] = 0
            deal.join(name)
        elif name not in living:
            continue
        elif what == "grant":
            clock += more
            limits[name] = deal.grant(name, clock)
        elif what == "lose":
            living.discard(name)
            lose(name)
        else:
            for giver, shares in deal.wanted_by(name).items():
                key = limits[giver] + more
                if what == "lost":
                    living.discard(name)
                    lose(name)
                holder, moved = deal.move(giver, name, shares, key)
                assert holder == (giver if what == "lost" else name)
                for share, at in moved:
                    end(giver, share, max(key, since[giver, share]))
                    since[holder, share] = at
    for (_, share), key in since.items():
        spans[share].append((key, 1 << 62))
    for found in spans.values():
        # A span that was given up before it began is empty; what is left must not overlap.
        full = sorted(span for span in found if span[0] < span[1])
        assert all(left[1] <= right[0] for left, right in itertools.pairwise(full))
