"""The command line: parses, calls one verb, renders. The only part that prints or exits."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line and exit with the code of its outcome."""
    from modelpack.cli.app import run

    sys.exit(run(sys.argv[1:]))
