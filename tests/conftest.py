"""For all tests: property tests draw the same examples every time, and are not judged by the clock."""

from __future__ import annotations

from hypothesis import settings

# A test that fails once in a hundred runs of CI tells nobody anything, and a busy machine is no failure.
# `make fuzz` is where new examples are looked for.
settings.register_profile("tests", derandomize=True, deadline=None)
settings.load_profile("tests")
