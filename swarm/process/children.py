"""Interpreters that this process starts: they find our packages, and nothing that lies in the current folder.

Python searches the current folder first for `-m` and `-c`, and so do workers of Ray: a user's queue.py would be run in
place of Python's own. The option -P keeps it out.
"""

import os
from pathlib import Path


def python_path() -> str:
    """Return a PYTHONPATH by which a child finds our packages, also in a checkout that was never installed."""
    ours = Path(__file__).parents[2]
    own = [] if ours.name in ("site-packages", "dist-packages") else [str(ours)]
    given = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    return os.pathsep.join(dict.fromkeys(filter(None, [*given, *own])))
