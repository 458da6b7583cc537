"""`python -m daedalus`: the `daeda` command line."""

from __future__ import annotations

import sys

from daedalus.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
