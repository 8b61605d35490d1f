"""xbuild makes a foreign-architecture root filesystem usable on the machine you have.

The public interface, which the command line itself uses:

    from xbuild import Container, Request, explain, plan_run

    plan = plan_run(Request("/srv/pi", ("uname", "-m")), remember=True)
    print(explain(plan))            # everything that will be done, and nothing is done yet
    status = Container(plan).run()  # the command's exit status; nothing is left

Names are imported when they are used: a start of ``xbuild run`` pays for what it needs alone.
"""

__version__ = "0.1.0"

TYPE_CHECKING = False
if TYPE_CHECKING:
    from xbuild.errors import XbuildError as XbuildError
    from xbuild.plan.explain import explain as explain
    from xbuild.plan.host import Host as Host
    from xbuild.plan.make import make_plan as make_plan
    from xbuild.plan.make import plan_run as plan_run
    from xbuild.plan.request import BindRequest as BindRequest
    from xbuild.plan.request import Request as Request
    from xbuild.plan.request import TmpfsRequest as TmpfsRequest
    from xbuild.plan.steps import Plan as Plan
    from xbuild.record import GuestPath as GuestPath
    from xbuild.record import HostPath as HostPath
    from xbuild.sandbox.container import Container as Container
    from xbuild.tree.survey import Survey as Survey
    from xbuild.tree.target import survey as survey

_HOMES = {
    "BindRequest": "xbuild.plan.request",
    "Container": "xbuild.sandbox.container",
    "GuestPath": "xbuild.record",
    "Host": "xbuild.plan.host",
    "HostPath": "xbuild.record",
    "Plan": "xbuild.plan.steps",
    "Request": "xbuild.plan.request",
    "Survey": "xbuild.tree.survey",
    "TmpfsRequest": "xbuild.plan.request",
    "XbuildError": "xbuild.errors",
    "explain": "xbuild.plan.explain",
    "make_plan": "xbuild.plan.make",
    "plan_run": "xbuild.plan.make",
    "survey": "xbuild.tree.target",
}


def __getattr__(name: str) -> object:
    """Import a public name's module when it is first used (PEP 562)."""
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'xbuild' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
