"""Errors say whose fault it was and what to change.

Every error that may reach a user is a `ReplayError`; its text is one line. The command line prints that
line and exits with `exit_code`. Anything else that escapes is a bug of ours.
"""

from __future__ import annotations


class ReplayError(Exception):
    """An error with a one-line message for the person at the keyboard."""

    exit_code = 2


class UsageError(ReplayError):
    """The command's words are off: an option, an address, a name."""


class ConfigError(ReplayError):
    """replay.toml is off: the message names the key and the fix."""


class InputError(ReplayError):
    """A file or dataset cannot be read as what it should be."""


class TargetError(ReplayError):
    """The build, upstream or target cannot be used: unreachable, unresolvable, refused."""


class InvalidRunError(ReplayError):
    """The run was not faithful enough to judge."""

    exit_code = 3
