"""`swarm lab`: does long-term memory help a language model? Corpus, training, evaluation, controls, plot."""
