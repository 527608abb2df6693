"""How long `modelpack --help` takes, next to importing the libraries it is made with."""

from __future__ import annotations

import sys
from pathlib import Path

from timing import compare

LIMIT = 1.5


def main() -> int:
    """Print the ratio; return 1 when it is above the limit."""
    modelpack = str(Path(sys.executable).with_name("modelpack"))
    pair = compare([modelpack, "--help"], [sys.executable, "-c", "import typer, rich"], runs=20)
    print(f"modelpack --help against importing typer and rich: {pair}")
    return int(pair.ratio > LIMIT)


if __name__ == "__main__":
    sys.exit(main())
