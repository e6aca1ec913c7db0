"""The locustfile behind `replay run`."""

from replay.send.user import ReplayShape, ReplayUser

__all__ = ["ReplayShape", "ReplayUser"]
