"""`swarm data exact-match`: sentences with one right end, told, paraphrased and never told."""
