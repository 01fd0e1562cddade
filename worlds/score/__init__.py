"""`score-v0`: a goal of one's own, a function that scores a text."""
