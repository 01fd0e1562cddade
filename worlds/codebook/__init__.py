"""`codebook-v0`: a codebook that lasts a run, and vaults that ask for what was told episodes ago."""
