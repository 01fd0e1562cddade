"""One run: tick loop, episodes, budget, topology, steering."""
