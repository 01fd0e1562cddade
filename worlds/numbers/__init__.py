"""`numbers-v0`: one agent's number puzzles, with the arithmetic and the solver behind them."""
