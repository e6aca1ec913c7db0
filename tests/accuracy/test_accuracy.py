"""One small service of the accuracy bench: all that was planted is found, and nothing else."""

from __future__ import annotations

from tests.accuracy.corpus import FAULTS, answers, endpoints
from tests.accuracy.judges import diffys, ours, score


def test_all_that_was_planted_is_found_and_nothing_else() -> None:
    service = endpoints(5, 2 * len(FAULTS), 500)
    result = score(service, ours(service, 5))
    assert result.found.total() == len(FAULTS)
    assert not result.missed
    assert result.wrong == 0


def test_a_threshold_alone_cries_wolf() -> None:
    # The corpus is no straw man for the differ alone: the same differences under Diffy's rule.
    service = endpoints(5, 2 * len(FAULTS), 500)
    result = score(service, diffys(service, 5))
    assert result.recall > 0.85
    assert result.precision < 0.9


def test_a_corpus_is_the_same_every_time() -> None:
    (first, *_), (again, *_) = endpoints(1, 4, 20), endpoints(1, 4, 20)
    assert list(answers(first, 7, broken=True)) == list(answers(again, 7, broken=True))
    assert list(answers(first, 7, broken=False)) != list(answers(first, 8, broken=False))
