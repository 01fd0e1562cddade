"""Whether code that comes with an experiment may run: only where a person has said so, command by command.

No file can say it, neither an experiment nor a run folder: both may come from somebody else. It stands in the
environment of the process, so that its child interpreters and Ray workers know it too.
"""

import os
from pathlib import Path

from worlds.protocol import WorldError

VARIABLE = "SWARM_TRUST"


def trust() -> None:
    """Let code of experiments run in this process and in those that it starts."""
    os.environ[VARIABLE] = "1"


def refuse_untrusted(file: Path) -> None:
    """Refuse code that nobody has trusted.

    Raises:
        WorldError: nobody has.
    """
    if os.environ.get(VARIABLE) != "1":
        raise WorldError(
            f"{file} is code that comes with the experiment, and may do whatever you may: read it, and if you trust "
            "it, add --trust to the command"
        )
