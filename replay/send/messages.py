"""What master and workers tell each other, on Locust's own channel: names of messages, and the times they keep.

A worker measures its clock against the master's (`CLOCK`), asks to take part (`JOIN`) and is told what there is to do
(`JOB`). Having read ahead it is `READY`; when all are, or at once for a late one, comes the instant, `START`. From then
on it tells how far it would go (`AT`) and may go as far as it is granted (`GRANT`). Shares are taken over (`TAKE`), and
given up (`GIVE`, answered by `GIVEN`). `TRIP` is a kill switch that was tripped, for all. At the `END`, or where it
stops for another reason, a worker sends its account: `DONE`. One that was lost and shows up again is told so: `FENCED`.
"""

from __future__ import annotations

CLOCK, JOIN, JOB, READY, START = (f"replay_{name}" for name in ("clock", "join", "job", "ready", "start"))
AT, GRANT, TAKE, GIVE, GIVEN = (f"replay_{name}" for name in ("at", "grant", "take", "give", "given"))
TRIP, END, DONE, FENCED = (f"replay_{name}" for name in ("trip", "end", "done", "fenced"))

BEAT_S = 0.2
"""How often a worker tells how far it would go."""

LEASE_NS = 1_000_000_000
"""How far ahead of now a worker may go by one grant."""

HOLD_S = 1.5
"""A worker that has not been granted anything for so long sends nothing more, whatever it had been granted."""

LOST_S = 3.0
"""A worker that has not been heard of for so long is lost: its shares move to the others."""

GONE_S = 10.0
"""A worker that has not heard of its master for so long ends by itself."""

LEAD_NS = 250_000_000
"""From agreement to the common start: messages travel and each worker's garbage is collected in it."""
