"""`archive-v0`: documents about persons, firms and places, of which everybody may open only some."""
