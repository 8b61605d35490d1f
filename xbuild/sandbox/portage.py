"""Which of Portage's FEATURES work in a container of this host, found by trying what each does.

Portage asks the kernel for namespaces of its own, and gives up where it has one that it cannot
arrange (FEATURES=pid-sandbox mounts a new /proc, portage/process.py). So the same is done
beforehand, by the tree's own util-linux, and only what failed is switched off.
"""

from __future__ import annotations

from xbuild.errors import HostUnable
from xbuild.record import Record
from xbuild.sandbox.tap import Tap
from xbuild.sandbox.tapped import TappedContainer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from xbuild.plan.steps import Plan

_CANNOT = "cannot"
_SCRIPT = """\
try() { name=$1; shift; "$@" >/dev/null 2>&1 </dev/null || echo "no $name"; }
command -v unshare >/dev/null && command -v mount >/dev/null || { echo cannot; exit 0; }
try mount-sandbox unshare --mount mount --make-rslave /
try pid-sandbox unshare --mount --pid --fork sh -c \
    'mount --make-slave /proc && mount -n -t proc proc /proc'
try ipc-sandbox unshare --ipc true
try network-sandbox unshare --net true
if command -v sandbox >/dev/null; then try sandbox sandbox true; fi
if id -u portage >/dev/null 2>&1; then
    try users install -d -o portage -g portage /tmp/.xbuild-portage
fi
exit 0
"""
COMMAND = ("/bin/sh", "-c", _SCRIPT)
"""What is to be planned, in the tree and with the options of the run that it is for."""

_WITH = {"sandbox": ("sandbox", "usersandbox")}
_USERS = "users"


class Probed(Record):
    """FEATURES that ``failed``; ``has_users``: files can be given to the user portage."""

    failed: tuple[str, ...] = ()
    has_users: bool = True
    notes: tuple[str, ...] = ()


def probe_features(plan: Plan) -> Probed:
    """Run COMMAND, which ``plan`` is for. Raises HostUnable where the tree's shell does not run."""
    tap = Tap(passes_on=False)
    status = TappedContainer(plan, tap).run()
    said = tap.tail("stdout").decode("utf-8", "replace").split("\n")
    if status != 0:
        raise HostUnable(
            f"Cannot find out which FEATURES work in {plan.target}: its shell ended with {status}",
            f"does it run? xbuild run {plan.target} -- /bin/sh -c true",
        )
    if _CANNOT in said:
        note = "FEATURES were not tried: the tree lacks unshare or mount (sys-apps/util-linux)"
        return Probed(notes=(note,))
    failed = [line.removeprefix("no ") for line in said if line.startswith("no ")]
    features = [name for each in failed if each != _USERS for name in _WITH.get(each, (each,))]
    return Probed(tuple(features), _USERS not in failed, _notes(features))


def _notes(features: list[str]) -> tuple[str, ...]:
    if not features:
        return ()
    return (f"FEATURES that do not work in this container are off: {' '.join(features)}",)
