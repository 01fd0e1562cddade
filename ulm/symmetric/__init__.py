"""Between text and registry: propositions, one decoder that reads, writes and asks, and what follows from relations."""
