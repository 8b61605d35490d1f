"""What certificates say of a run, where other sessions of tests use loop devices meanwhile."""

from __future__ import annotations

CLEAN, CHANGED = "host untouched: ", "NOT untouched: "


def differences(certificate: str, own: tuple[str, ...]) -> list[str]:
    """Return what a certificate names as changed, but for the loop devices of other sessions.

    ``own`` are the directories of this one: what appeared shows a file there, if it is ours, and
    what was there before cannot be.
    """
    if certificate.startswith(CLEAN):
        return []
    assert certificate.startswith(CHANGED), certificate
    *named, _freedom = certificate.removeprefix(CHANGED).split("; ")
    return [each for each in named if not _is_of_others(each, own)]


def certificate_among(lines: list[str]) -> str:
    """Return the one certificate among other lines."""
    (found,) = (line for line in lines if line.startswith((CLEAN, CHANGED)))
    return found


def _is_of_others(difference: str, own: tuple[str, ...]) -> bool:
    _, _, file = difference.partition(" appeared (")
    return difference.startswith("loop device ") and not file.startswith(own)
