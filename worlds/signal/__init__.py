"""`signal-v0`: two agents who have to find a language."""
