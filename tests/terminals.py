"""Sessions on terminals (pexpect.spawn): what they wait for, and how they end."""

from __future__ import annotations

import termios

import pexpect

from tests.patience import wait_for

_LFLAG = 3  # of what tcgetattr returns


def status_of(session: pexpect.spawn[str]) -> int | None:
    """Wait for the end of a session and return its exit status."""
    session.expect(pexpect.EOF)
    wait_for(lambda: not session.isalive())
    return session.exitstatus


def hang_up(session: pexpect.spawn[str]) -> None:
    """Close the terminal, as a window that is closed does, and wait for the end of the session.

    pexpect's own close sends signals of its own to what takes a moment to end.
    """
    session.ptyproc.fileobj.close()  # type: ignore[attr-defined]  # types-pexpect leaves it out
    wait_for(lambda: not session.isalive())
    session.close()


def await_keys(session: pexpect.spawn[str]) -> None:
    """Wait until xbuild has the terminal, and passes keys on: no key of it makes a signal then."""
    wait_for(lambda: not termios.tcgetattr(session.child_fd)[_LFLAG] & termios.ISIG)
