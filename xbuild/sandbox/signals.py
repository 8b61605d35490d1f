"""Signals of a run: held back while it starts, then passed on from each process to the next.

A process 1 has no default actions (pid_namespaces(7)): what reached it before its handlers stand
would be lost, were it not blocked.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from collections.abc import Callable

    Handler = Callable[[int, object], None]
else:
    import _signal as signal  # signal itself imports enum

FORWARDED = (
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGTERM,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGTSTP,
    signal.SIGCONT,
)
# From the launcher: process 1 kills all others, and goes on with what it has to do at the end.
END_ALL = signal.SIGXCPU
_OF_LAUNCHER = (*FORWARDED, END_ALL)
_OF_INIT = (*_OF_LAUNCHER, signal.SIGCHLD, signal.SIGIO)
_TO_THE_GROUP: dict[int, int] = {
    signal.SIGINT: signal.SIGINT,
    signal.SIGQUIT: signal.SIGQUIT,
    signal.SIGHUP: signal.SIGHUP,
    # The command leads a session, whose group has no parent to continue it: such a one ignores
    # SIGTSTP (setpgid(2), orphaned process groups).
    signal.SIGTSTP: signal.SIGSTOP,
    signal.SIGCONT: signal.SIGCONT,
}
_RESERVED = (signal.SIGKILL, signal.SIGSTOP, 32, 33)  # the last two are libc's own: signal(7)
RESETTABLE = tuple(number for number in range(1, signal.NSIG) if number not in _RESERVED)


class Forwarding:
    """A block in which the launcher passes signals on, and after which all is as before."""

    def __enter__(self) -> Forwarding:
        """Hold back what will be passed on, for this process and those that it forks."""
        self._before: dict[int, object] = {}
        self.unheard: int | None = None  # a signal that came when there was nobody to get it
        self._mask = signal.pthread_sigmask(signal.SIG_BLOCK, FORWARDED)
        # Inherited as ignored, it would make the kernel reap children unasked (wait(2)).
        self._replace(signal.SIGCHLD, signal.SIG_DFL)
        return self

    def begin(self, pid: int, heard: Callable[[int], None] | None = None) -> None:
        """Pass signals on to ``pid``; those that are ignored here, as by nohup(1), stay so.

        ``heard`` is called with the number of each as well.
        """

        def pass_on(number: int) -> None:
            if not send(pid, number):
                self.unheard = number
            elif heard is not None:
                heard(number)

        self.begin_by(pass_on)

    def pause(self) -> None:
        """Hold them back again, until the next ``begin``."""
        signal.pthread_sigmask(signal.SIG_BLOCK, FORWARDED)

    def begin_by(self, pass_on: Callable[[int], object]) -> None:
        """Pass signals on by calling ``pass_on`` with the number of each."""

        def forward(number: int, _frame: object) -> None:
            pass_on(number)
            if number == signal.SIGTSTP:
                os.kill(os.getpid(), signal.SIGSTOP)

        for number in FORWARDED:
            if signal.getsignal(number) != signal.SIG_IGN:
                self._replace(number, forward)
        signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)

    def _replace(self, number: int, handler: Handler | int) -> None:
        self._before.setdefault(number, signal.signal(number, handler))

    def __exit__(self, *_exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]  # as signal() returned it
        signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)


def forward_to(pid: int) -> None:
    """Pass on what was held back, and all that follows, to ``pid``."""

    def forward(number: int, _frame: object) -> None:
        send(pid, number)

    _handle_forwarded(forward)


def hold_back_for_init() -> None:
    """Let what process 1 lives by wait for ``next_for_init``, from before its first child."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _OF_INIT)


def next_for_init() -> int:
    """Wait for a signal that process 1 lives by, and return its number (sigwaitinfo(2)).

    No handler interrupts anything: what is blocked is neither lost nor, by default, ignored. What
    processes of the container send is meant for an init of theirs, and not passed on.
    """
    while True:
        found = signal.sigwaitinfo(_OF_INIT)
        if not found.si_pid or found.si_signo not in _OF_LAUNCHER:
            return found.si_signo


def next_for_init_within(seconds: float) -> int | None:
    """Do the same, for so long; None if there is none (sigtimedwait(2))."""
    found = signal.sigtimedwait(_OF_INIT, seconds)
    return None if found is None else found.si_signo


def send_as_terminal(child: int, number: int) -> None:
    """Send a signal as a terminal would: what a key sends goes to the whole process group."""
    as_typed = _TO_THE_GROUP.get(number)
    if as_typed is None or not send(-child, as_typed):
        send(child, number)


def _handle_forwarded(handler: Handler) -> None:
    for number in _OF_LAUNCHER:
        signal.signal(number, handler)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _OF_LAUNCHER)


def ignore_forwarded() -> None:
    """Be deaf to what was passed on so far."""
    for number in _OF_LAUNCHER:
        signal.signal(number, signal.SIG_IGN)


def send(pid: int, number: int) -> bool:
    """Send a signal; False when there is nobody to get it."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True


def restore_defaults() -> None:
    """Give a new program all signals unblocked and with their default actions."""
    for number in RESETTABLE:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
