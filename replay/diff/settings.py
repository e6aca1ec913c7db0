"""All settings of a comparison in one place, each with the default that is meant for nobody in particular."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date

from replay.diff.accepted import Acceptance
from replay.diff.answers import CompareSettings
from replay.diff.latency import LatencySettings
from replay.diff.noise import JudgeSettings


@dataclass(frozen=True, slots=True)
class DiffSettings:
    """`max_unpaired` and `max_failed` are shares of exchanges beyond which a comparison is invalid.

    `accepted` are the differences that a person accepts, as of `today`.
    """

    compare: CompareSettings = field(default_factory=CompareSettings)
    judge: JudgeSettings = field(default_factory=JudgeSettings)
    latency: LatencySettings | None = field(default_factory=LatencySettings)
    max_unpaired: float = 0.1
    max_failed: float = 0.05
    accepted: tuple[Acceptance, ...] = ()
    today: date = date.max
