"""`replay init`: a replay.toml to begin with, every key explained where it stands."""

from __future__ import annotations

from pathlib import Path

from replay.errors import ConfigError

TEMPLATE = """\
# replay.toml: what `replay gate` does, and how the other commands do their part of it.
# Paths count from this file. Commented lines show the defaults, or examples.

[gate]
capture = "captures/mine"      # made by `replay capture` or `replay import`
out = "gate-out"               # reports, runs and logs; an earlier gate's are replaced
# title = "Replay gate"
# control = true               # replay to the old build twice: what differs between the two is noise
# confirm = true               # ask suspects again, both builds up: reproducible, or a flake?
# at_once = false              # true: all builds up and replayed to together

# A build is a command to start, or a url where it already runs. {port} stands for a free port.
[baseline]
command = "./serve --port {port}"
# url = "https://staging-old.example.com"
ready = "/health"              # answers below 400 once the build is up; left out: its port is open
# timeout = 60                 # seconds to become ready, and for the reset
# grace = 10                   # seconds to end after SIGTERM, then SIGKILL to the whole process group
# directory = "."
# log = "baseline.log"         # default: baseline.log, control.log and candidate.log in `out`
# reset = "./restore-staging-data"   # before each run; gets REPLAY_ROLE, REPLAY_URL, REPLAY_PORT
# env = { DATABASE_URL = "postgres://staging/old" }

[candidate]
command = "./serve-new --port {port}"
ready = "/health"

# The load, for `replay run` too; without rate, ramp or concurrency: as recorded.
[run]
# speed = 1.0                  # times as fast as recorded
# rate = 500                   # requests per second instead of the recorded times
# duration = 600               # seconds
# workers = 1                  # processes that send
# timeout = 30                 # seconds to wait for an answer
# writes = ["POST /search", "/cart*"]  # sent too; left out: GET, HEAD, OPTIONS and TRACE only; or "all"
# deny = ["/payments*", "/mail*"]      # never sent, whatever else is said
# production = ["shop.example.com", "203.0.113.0/24"]   # never hit, nor where the capture was recorded
# staging = ["staging.example.com"]    # may be hit although its address is public; as are the urls above
# max_rate = 1000              # requests per second that are never exceeded; max_concurrency likewise
# ramp_up = 5                  # seconds in which a `rate` above 500/s grows to its height
# abort_errors = 0.5           # stop where failures exceed the usual share by this; 0 switches a rule off
# abort_p99 = 0                # seconds: stop where 1 % of the answers take longer
# abort_groups = ["/orders/*", "/search*"]   # judged and stopped alone; ["each"]: every endpoint
# abort_verdict = "fail"       # or "invalid": what a stop makes the verdict

# Sessions: what to write into requests beside the values that this target hands out (docs/sessions.md).
# [auth]
# users = "users.csv"          # test users: a header line, then a row each
# [[rewrite.rule]]
# endpoint = "POST /login*"
# form = "password"            # or json = "$.password", header, query
# set = "{user.password}"      # a column of the session's user, or {env.NAME}

# What a build may do and still pass. Left out: 0 regressions, 0 endpoints slower, all else is free.
[limits]
# regressions = 0              # findings; "any" for no limit
# suspects = "any"
# slower = 0                   # endpoints
# error_rate = 0.01            # share of the candidate's requests that failed or were answered 5xx
# p95_ratio = 1.5              # new / old time to answer, of each endpoint; also p50_ratio, p99_ratio

# [limits.all]                 # of all requests together
# p99_ratio = 1.2

# [limits.endpoint."GET /search"]
# p95_ratio = 2.0

# [limits.fidelity]            # beyond these a run is not judged: exit 3
# lag_p99_ms = 50              # the generator's own lateness
# late_share = 0.05            # sent more than 10 ms late
# rate_error = 0.2             # of any second
# rate_correlation = 0.95      # of the rate with the schedule: at least this
# gap_distance = 0.25          # of the gaps between arrivals (Kolmogorov-Smirnov)
# mix_divergence = 0.02        # of the endpoints' shares
# skipped_share = 0.05
# lost = 0                     # arrivals

# Differences that are meant, or mean nothing.
# [[diff.rule]]
# endpoint = "GET /orders/*"
# path = "$.items[*].price"
# tolerance = 0.01             # or: ignore = true, relative = 0.01, mask = "v[0-9]+", unordered = true, key = "id",
#                              # time = 5; `replay diff --suggest rules.toml` proposes some
"""


def write_template(path: Path) -> None:
    """Write the commented file. `ConfigError` where there is one already: it is never overwritten."""
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(TEMPLATE)
    except FileExistsError:
        raise ConfigError(f"{path} is there already: edit it, or name another with --config") from None
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}") from None
