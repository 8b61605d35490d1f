"""When two builds of a program are of the same source and the same settings: gate (a) of a set.

Pure. What may differ is a closed list with reasons: all else is a difference, and refused.
"""

from __future__ import annotations

import re
import shlex

from xbuild.record import Record

# A rebuild of the same source for one architecture alone (deb-version(7), binary-only uploads).
_REBUILD = re.compile(r"\+b\d+$")
# Debian's and Ubuntu's cross compilers are built from the package gcc-N-cross of the same source.
_CROSS_BUILD = re.compile(r"cross\d+(?:\.\d+)?$")


class Expected(Record):
    """An option of configure that may differ between a native and a cross build, and why."""

    pattern: str
    reason: str


EXPECTED = (
    Expected(r"--(build|host)=", "where each was built and runs"),
    Expected(r"--target=", "named only where it is not the host's; both say the same target"),
    Expected(r"--program-(prefix|suffix)=", "names of programs"),
    Expected(r"--(includedir|with-sysroot|libdir|libexecdir)=?", "paths, made the tree's own"),
    Expected(r"--(bindir|datadir|mandir|infodir|with-python-dir)=", "where its own files are"),
    Expected(r"--enable-(shared|threads=posix)$", "named or not, so it is on GNU/Linux"),
    Expected(r"--disable-poison-system-directories$", "named or not, so it is"),
    Expected(r"--enable-languages=", "each compiler that is used is there"),
    Expected(r"--(en|dis)able-bootstrap", "how the compiler itself was built"),
    Expected(r"--with-build-config=", "how the compiler itself was built"),
    Expected(r"--enable-link-serialization", "how the compiler itself was built"),
    Expected(r"--(with|without)-target-system-zlib", "libraries of Go and Java, not compilers"),
    Expected(r"--(en|dis)able-objc-gc", "a library that the tree has its own of"),
    Expected(r"--disable-lib(sanitizer|vtv)", "a library that the tree has its own of"),
    Expected(r"--(en|dis)able-libphobos", "a library that the tree has its own of"),
    Expected(r"--enable-offload-", "with -fopenmp and -fopenacc the tree's own is used"),
    Expected(r"--without-cuda-driver", "a library that the tree has its own of"),
    Expected(r"--with(out)?-build-time-tools", "how the compiler itself was built"),
    Expected(r"--disable-werror", "how the compiler itself was built"),
)


def same_revision(tree: str, provider: str) -> bool:
    """Tell whether two package versions are builds of one source.

    A binary-only rebuild (``+b1``) and the mark of the cross packages (``cross1``) do not count;
    all else does: 12.2.0-14 lacks the patches of 12.2.0-14+deb12u1.
    """
    return source_revision(tree) == source_revision(provider)


def source_revision(version: str) -> str:
    """Return a package version without what only says how it was built."""
    return _CROSS_BUILD.sub("", _REBUILD.sub("", version))


def configuration_differences(tree: str, provider: str) -> tuple[str, ...]:
    """Return the options of ``configure`` that only one side has and that are not expected.

    Both are the text behind ``Configured with:`` of ``gcc -v``. Options of the tree are written
    ``tree: --with-arch=armv6``, those of the provider ``native: ...``.
    """
    ours, theirs = _options(tree), _options(provider)
    found = [f"tree: {option}" for option in ours if option not in theirs]
    found += [f"native: {option}" for option in theirs if option not in ours]
    return tuple(line for line in found if not _is_expected(line.partition(": ")[2]))


def _options(configuration: str) -> tuple[str, ...]:
    """Return the options that count: of those that say one thing twice, the last (autoconf)."""
    try:
        words = shlex.split(configuration)
    except ValueError:
        words = configuration.split()
    last = {_about(word): word for word in words if word.startswith("--")}
    return tuple(last.values())


def _about(option: str) -> str:
    """Return what an option decides: ``--enable-x=y`` and ``--disable-x`` the same."""
    name = option.partition("=")[0]
    name = re.sub(r"^--(disable|enable)-", "--enable-", name)
    return re.sub(r"^--(without|with)-", "--with-", name)


def _is_expected(option: str) -> bool:
    return any(re.match(expected.pattern, option) for expected in EXPECTED)
