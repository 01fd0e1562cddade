"""`swarm check`: what a file would do, told before it does it; one file per kind of file.

Starts nothing that lasts and leaves nothing behind: it measures in this process, in temporary folders.
"""

from swarm.check.plan import Plan, check_file, kind_of

__all__ = ["Plan", "check_file", "kind_of"]
