"""``python -m xbuild``."""

from __future__ import annotations

import sys

from xbuild.cli.main import main

sys.exit(main())
