"""`graph-v0`: a maze of rooms, keys and doors."""
