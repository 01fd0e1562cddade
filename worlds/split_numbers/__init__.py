"""`split-numbers-v0`: the hidden-profile number puzzle."""
