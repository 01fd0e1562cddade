"""`vault-v0`: notes to remember, vaults to open."""
