"""What a wheel has besides the package: manual pages and completion, made from the program."""

from __future__ import annotations

import os
import sys
import tempfile
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class CustomBuildHook(BuildHookInterface):  # type: ignore[type-arg]  # hatchling's own parameter
    """Writes them to a directory that goes when they are packed."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # Any: hatchling's own
        """Add the files to a wheel; an editable install goes without them."""
        if version == "editable":
            return
        sys.path.insert(0, self.root)
        from xbuild.cli.completion import PLACES, script_for
        from xbuild.cli.group import xbuild
        from xbuild.cli.manual import manual_pages

        files = {f"man/man1/{name}": text for name, text in manual_pages(xbuild, self._version())}
        files |= {place: script_for(shell) for shell, place in PLACES.items()}
        self._made = tempfile.TemporaryDirectory(prefix="xbuild-documents-")
        for place, text in files.items():
            path = os.path.join(self._made.name, place)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "w", encoding="utf-8") as file:
                file.write(text)
            build_data["shared_data"][path] = f"share/{place}"

    def finalize(self, version: str, *_outcome: Any) -> None:  # Any: hatchling's own
        """Delete the files, which are in the wheel now."""
        if version != "editable":
            self._made.cleanup()

    def _version(self) -> str:
        return str(self.metadata.version)
