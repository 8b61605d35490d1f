"""The Gentoo name of a tree's architecture, which is GNU's: machine-vendor-kernel-environment."""

from __future__ import annotations

from xbuild.binary.arch import arch_named
from xbuild.errors import TargetError, UnknownArchitecture
from xbuild.record import GuestPath
from xbuild.tree.distribution import parse_os_release

TYPE_CHECKING = False
if TYPE_CHECKING:
    from xbuild.binary.arch import Arch
    from xbuild.tree.distribution import Distribution
    from xbuild.tree.resolve import TreeReader

_ENVIRONMENTS = {"glibc": "gnu", "musl": "musl", "uclibc": "uclibc", "bionic": "android"}
_MAKE_CONF = (GuestPath("/etc/portage/make.conf"), GuestPath("/etc/make.conf"))
_LIMIT = 64 * 1024


def chost_for(base: str, libc: str | None) -> str:
    """Return ``base``, the CHOST of an architecture and ABI, with the environment of ``libc``.

    As config.sub and Gentoo's profiles spell them: gnueabihf, musleabihf, uclibcgnueabihf,
    androideabi. Without a known C library ``base`` is the answer.
    """
    wanted = _ENVIRONMENTS.get(libc or "")
    system, _, environment = base.rpartition("-")
    for present in _ENVIRONMENTS.values():
        if wanted is not None and environment.startswith(present):
            variant = environment[len(present) :]
            if libc == "uclibc" and variant.startswith("eabi"):
                variant = "gnu" + variant
            if libc == "bionic":
                variant = variant.removesuffix("hf")
            return f"{system}-{wanted}{variant}"
    return base


def declared_chost(reader: TreeReader, distribution: Distribution | None) -> str | None:
    """Return the CHOST that a Gentoo tree's make.conf sets; None where none does."""
    if distribution is None or distribution.id != "gentoo":
        return None
    for path in _MAKE_CONF:
        try:
            text = reader.read(path, _LIMIT).decode("utf-8", "replace")
        except TargetError:
            continue
        chost = parse_os_release(text).get("CHOST", "")
        if is_chost(chost):
            return chost
    return None


def is_chost(text: str) -> bool:
    """Tell whether ``text`` is what a CHOST may be: words joined by -, and no path."""
    words = text.split("-")
    plain = all(word.replace("_", "").replace(".", "").isalnum() for word in words)
    return plain and text.isascii() and len(words) > 1 and not text.startswith(".")


def fits(chost: str, arch: Arch) -> bool:
    """Tell whether programs for a CHOST are of this machine; True where its name is unknown."""
    machine = chost.partition("-")[0].lower()
    if machine.startswith(("armv", "arm")) and not machine.startswith("arm64"):
        return arch.machine == arch_named("arm").machine
    try:
        named = arch_named(machine)
    except UnknownArchitecture:
        return True
    return named.machine == arch.machine and named.order == arch.order
