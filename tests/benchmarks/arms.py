"""What benchmarks of several arms are asked on the command line."""

import argparse
from collections.abc import Collection
from pathlib import Path


def arms_parser(description: str | None, arms: Collection[str]) -> argparse.ArgumentParser:
    """Return a parser of --out, --seeds, --arms (all of them by default) and --set."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--arms", nargs="+", default=list(arms), choices=list(arms))
    parser.add_argument("--set", action="append", default=[], dest="overrides")
    return parser
