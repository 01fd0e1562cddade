"""`swarm eval`: what an Engram remembers, what it costs, and what it leaves alone, against controls and against LoRA.

- `config`: what a file may say. `evaluation`: the driver; what is done already is not done again.
- `arms`: models with the memory, or the adapter, of an arm, and how they are asked. `training`: those that are trained.
- `measures`, `text_measures`, `cost_measures`: the measurements, each of one arm. `facts` says what is told and asked.
- `results`: rates, intervals and differences. `plots`: pictures of them.
"""
