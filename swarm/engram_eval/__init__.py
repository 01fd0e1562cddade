"""`swarm eval`: what an Engram remembers, what it costs, and what it leaves alone, against controls and against LoRA.

- `config`: what a file may say. `evaluation`: the driver; what is done already is not done again.
- `arms`: models with the memory, or the adapter, of an arm. `training`: those that are trained.
- `measures`: the measurements, each of one arm. `results`: rates, intervals and verdicts. `plots`: pictures of them.
"""
