"""The cells in which programs take images apart, or a warning where this host lets none be made."""

from __future__ import annotations

import warnings

from xbuild.sandbox.cell import Cell, Refused


class Unconfined(UserWarning):
    """What takes an image apart does so with all rights of the caller: no cell could be made."""


def make_cell(
    label: str, *descriptors: int, may_write: bool = False, has_bounds: bool = True
) -> Cell | None:
    """Return a cell for programs that open these; None, and a warning, where none can be made.

    ``label`` is the image's name in that warning.
    """
    try:
        return Cell(descriptors, may_write=may_write, has_bounds=has_bounds)
    except Refused as error:
        text = f"programs that read {label} have all your rights: {error.message}\n{error.hint}"
        warnings.warn(Unconfined(text), stacklevel=2)
        return None
