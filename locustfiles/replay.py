"""Replay a capture with Locust's own command line and web UI:

locust -f locustfiles/replay.py --capture captures/shop --host http://staging:8080 --out run-1
"""

import sys

# Locust registers this file under its own name, `replay`, and puts its directory first on the path: both
# would hide the package of that name.
_directory = sys.path.pop(0)
del sys.modules[__name__]
from replay.send.user import ReplayShape, ReplayUser

sys.path.insert(0, _directory)

__all__ = ["ReplayShape", "ReplayUser"]
