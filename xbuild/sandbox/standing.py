"""What the launcher has for a run's whole life, and gives back at its end: a lock and an entry."""

from __future__ import annotations

import os

from xbuild.errors import SetupFailed
from xbuild.plan.lifecycle import Enlist, LinkJournal, LockTree
from xbuild.sandbox import _unix
from xbuild.sandbox.entry import Entry, Handover, state_directory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from xbuild.plan.steps import Plan


class Standing:
    """What the launcher has for a run's whole life: a lock on the tree, and an entry.

    ``locks`` are to be kept open by process 1; by ``handover`` it gets the entry, None where there
    will be none. ``status``: how the run ended, once that is known.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._entry: Entry | None = None
        self.locks: tuple[int, ...] = ()
        self.handover: Handover | None = None
        self.status: int | None = None

    def __enter__(self) -> Standing:
        """Take the lock. Raises TreeLocked, SetupFailed."""
        for step in self._plan.steps:
            if isinstance(step, LockTree):
                self.locks = lock_tree(step)
            elif isinstance(step, Enlist):
                self.handover = Handover()
            elif isinstance(step, LinkJournal):
                _link_journal(step)
        return self

    def enlist(self) -> None:
        """List the container, while its process 1 has its own work: on a disk, both take as long.

        Raises NameTaken, SetupFailed.
        """
        if self.handover is None:
            return
        step = next(step for step in self._plan.steps if isinstance(step, Enlist))
        try:
            if self._entry is None:
                self._entry = Entry(step, self._plan)
            else:
                self._entry.listen()
        except OSError as error:
            if step.is_required:  # a run that nobody named can do without
                raise SetupFailed(
                    f"Cannot list the container in {state_directory()}: {error.strerror}",
                    "nobody but you may write to it, and its file system must have locks",
                ) from error
        self.handover.give(self._entry)

    def begin_again(self) -> None:
        """Be ready for another process 1 of the same container, to ``enlist`` that."""
        if self.handover is not None:
            self.handover = Handover()

    def withdraw(self) -> None:
        """List it no more, while the kernel takes it apart."""
        if self._entry is not None:
            self._entry.withdraw()

    @property
    def entry(self) -> Entry | None:
        """The entry; None where none could be made."""
        return self._entry

    def __exit__(self, *_exception: object) -> None:
        if self.handover is not None:
            self.handover.close()
        if self._entry is not None:
            self._entry.end(self.status)
        for fd in self.locks:
            os.close(fd)


def lock_tree(step: LockTree) -> tuple[int, ...]:
    """Lock a tree; returns the descriptor that holds the lock, or none where there are no locks.

    Raises TreeLocked, and SetupFailed where it was to be had alone and cannot be locked.
    """
    try:
        fd = os.open(step.tree, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        return _without_lock(step, error)
    operation = _unix.LOCK_EX if step.is_exclusive else _unix.LOCK_SH
    try:
        _unix.flock(fd, operation | _unix.LOCK_NB)
    except BlockingIOError:
        from xbuild.sandbox.contention import lock_patiently  # off the start path

        lock_patiently(step, fd)
    except OSError as error:
        os.close(fd)
        return _without_lock(step, error)
    return (fd,)


def _link_journal(step: LinkJournal) -> None:
    try:
        if os.path.islink(step.link):
            os.unlink(step.link)  # of a tree that was elsewhere
        os.symlink(step.journal, step.link)
    except OSError as error:
        raise SetupFailed(
            f"Cannot link the journal: {step.link}: {error.strerror}",
            "as root; a directory of that name is a journal kept on the host: --link-journal host",
        ) from error


def _without_lock(step: LockTree, error: OSError) -> tuple[int, ...]:
    if step.is_exclusive:
        raise SetupFailed(
            f"Cannot lock {step.tree}: {error.strerror}", "do without --exclusive"
        ) from error
    return ()
