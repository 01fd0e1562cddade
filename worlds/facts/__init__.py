"""`facts-v0`: a help centre whose agents read different documents."""
