"""What an MQAR file may say: the tasks, the model with memory, training, and how much is scored.

Owns the schema of `swarm mqar`. It refuses to read files and to start anything.
"""

from typing import Any, Self

from pydantic import Field, model_validator

from swarm.config.section import Name, Section
from swarm.config.training import Device, OptimizerSection
from swarm.lab.ltm.config import ARMS, Arm
from ulm.config import LTMConfig, ModelConfig, matched_without_memory
from ulm.memory import CONTROLS, Control


class TaskSection(Section):
    """A task: pairs of key and value, then each key alone (MQAR; Arora et al., arXiv:2312.04927)."""

    vocab_size: int = Field(8192, ge=16)
    """Different tokens: filler and start, then keys, then values."""

    length: int = Field(512, ge=8)
    """Tokens of a sequence."""

    pairs: int = Field(64, ge=1)
    """Pairs of key and value; each key is asked for once."""

    reassigned: int = Field(0, ge=0)
    """Keys that get another value before the queries begin."""

    power: float = Field(0.01, gt=0, le=1)
    """How queries are spread: 1 spreads them evenly; smaller values put most of them near the pairs."""

    noise: bool = False
    """Fill with random tokens; otherwise with one that never changes."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        from ulm.train.mqar import MqarTask

        MqarTask(**self.model_dump())
        return self


class ModelSection(Section):
    """The shape of the model with memory; the baseline is the same without it, widened to as many parameters."""

    n_layer: int = Field(2, ge=1)
    """Blocks."""

    n_head: int = Field(2, ge=1)
    """Attention heads of each block."""

    n_kv_head: int = Field(1, ge=1)
    """Heads of keys and values, a divisor of `n_head`."""

    head_size: int = Field(32, ge=2)
    """Width of a head; an even number."""

    d_model: int = Field(64, ge=8)
    """Width of the residual stream."""

    d_ff: int = Field(128, ge=8)
    """Width of the feed-forward layers."""

    window: int = Field(128, ge=8)
    """Tokens that attention reaches back (STM)."""

    ltm: dict[str, Any] = Field(default_factory=lambda: {"layers": [0]})
    """Fields of `ulm.config.LTMConfig`; `layers`, the blocks that read the memory, must be among them."""

    @property
    def reach(self) -> int:
        """Tokens that anything can travel through the windows of all blocks, one after the other."""
        return self.n_layer * (self.window - 1)

    def config(self, arm: Arm, vocab_size: int) -> ModelConfig:
        """Return the shape of an arm's model.

        Raises:
            ValueError: the fields do not fit.
        """
        shape = ModelConfig(vocab_size=vocab_size, **self.model_dump() | {"ltm": LTMConfig.from_dict(self.ltm)})
        return shape if arm == "with_ltm" else matched_without_memory(shape)


class EvalSection(Section):
    """What is measured."""

    sequences: int = Field(128, ge=2)
    """New sequences that are scored, per task, arm and seed."""

    controls: tuple[Control, ...] = CONTROLS
    """Null controls that are scored beside the arm with memory."""


class MqarConfig(Section):
    """An MQAR file, for `swarm mqar`: recall of synthetic pairs with and without memory."""

    name: Name
    """Names the work folder under runs/."""

    seeds: tuple[int, ...] = (1, 2, 3)
    """Seeds of weights and sequences; each arm is trained once per seed and task."""

    tasks: dict[str, TaskSection] = Field(default_factory=lambda: {"mqar": TaskSection()}, min_length=1)
    """Tasks by name."""

    model: ModelSection = ModelSection()
    """The shape of the models."""

    optimizer: OptimizerSection
    """How weights are changed; the same for all tasks and arms."""

    device: Device = "auto"
    """`auto`, `cpu`, `cuda` or `mps`; each task has one CPU thread, or one GPU."""

    eval: EvalSection = EvalSection()
    """What is measured."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if not self.seeds or len(set(self.seeds)) != len(self.seeds) or min(self.seeds) < 0:
            raise ValueError("`seeds` must be different whole numbers of at least 0")
        for name, task in self.tasks.items():
            if not name.replace("-", "").replace("_", "").isalnum():
                raise ValueError(f"tasks.{name}: a name has letters, digits, - and _ only")
            for arm in ARMS:
                self.model.config(arm, task.vocab_size)
        return self
