"""`swarm mqar`: multi-query associative recall with and without memory."""
