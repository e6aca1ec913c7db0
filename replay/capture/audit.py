"""The search for secrets that were left: the detectors of redaction, replacing nothing.

What they find is a pseudonym if it carries the mark (`replay.capture.pseudonyms`), and suspect if it does not.
Values too short to carry one are not judged. No key is needed.
"""

from __future__ import annotations

from dataclasses import dataclass

from replay.capture.codings import codings_of, open_body
from replay.capture.detectors import DETECTORS
from replay.capture.fields import leaves
from replay.capture.parts import Part, Secrets
from replay.capture.pseudonyms import is_marked
from replay.capture.redact import Policy
from replay.capture.rules import Applied
from replay.model import Header


@dataclass(frozen=True, slots=True)
class Suspect:
    """Where something stands that looks like a secret and is no pseudonym. Never the secret itself."""

    detector: str
    place: str


class _Auditor(Secrets):
    """Takes what detectors hand over, and gives it back as it is."""

    def __init__(self, policy: Policy) -> None:
        super().__init__(policy.names, policy.headers, b"", {}, frozenset(policy.detectors))
        self.suspects: list[tuple[Suspect, bytes]] = []

    def raw(self, data: bytes) -> bytes:
        text = data.decode("utf-8", "replace")
        if data not in self.kept and is_marked(text) is False:
            self.suspects.append((Suspect(self.detector, self.place), data))
        return data


def suspects(policy: Policy, target: str, headers: list[Header], body: bytes | None) -> list[Suspect]:
    """The suspected secrets in one message. What the policy's rules keep is not suspected."""
    auditor = _Auditor(policy)
    plain = open_body(body, codings_of(headers)).data if body else None
    part = Part(target, list(headers), plain)
    for rule in policy.rules:
        if rule.action == "keep":
            Applied(rule).apply(part, auditor)
    for name in policy.detectors:
        if name != "echoes":
            auditor.detector = name
            DETECTORS[name](part, auditor)
    found = [_with_path(suspect, secret, part) for suspect, secret in auditor.suspects]
    return list(dict.fromkeys(found))


def _with_path(suspect: Suspect, secret: bytes, part: Part) -> Suspect:
    """The suspect with the path of its JSON field, where it is in one."""
    if not suspect.place.startswith("body") or not part.body or not part.is_json():
        return suspect
    for leaf in leaves(part.body):
        if secret in part.body[leaf.start : leaf.end]:
            return Suspect(suspect.detector, f"body {leaf.path}")
    return suspect
