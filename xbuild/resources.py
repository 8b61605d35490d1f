"""Where the data files are: one resolver for a wheel, an editable install and a checkout."""

from __future__ import annotations

import os

from xbuild.record import HostPath

_PACKAGE = os.path.dirname(os.path.abspath(__file__))


def data_directory(name: str) -> HostPath:
    """Return the directory of ``binfmt``, ``profiles`` or ``known`` data files.

    A wheel carries them in ``xbuild/data``; a checkout and an editable install have them beside
    the package. Raises FileNotFoundError when the installation is incomplete.
    """
    for parent in (os.path.join(_PACKAGE, "data"), os.path.dirname(_PACKAGE)):
        candidate = os.path.join(parent, name)
        if os.path.isdir(candidate):
            return HostPath(candidate)
    raise FileNotFoundError(f"xbuild is installed without its {name} directory")
