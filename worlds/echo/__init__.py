"""`echo-v0`: the world that answers with what it was told, for measuring the machinery."""
