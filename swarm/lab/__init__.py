"""Memories measured, each in a package of its own: `ltm`, `mqar`, `engram`, `facts`."""
