"""The commands of `swarm`, one file each, thin: they parse, call one function of `swarm`, and print.

Heavy packages (torch, ray, transformers, matplotlib, pydantic) are imported inside the commands, so that
`swarm --help` answers at once.
"""
