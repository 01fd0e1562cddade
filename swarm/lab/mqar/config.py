"""What an MQAR file may say: the tasks, the model with memory, training, and how much is scored.

Owns the schema of `swarm mqar`. It refuses to read files and to start anything.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field, model_validator

from swarm.config.section import Section
from swarm.config.training import Device, OptimizerSection
from swarm.lab.ltm.config import ARMS, Arm
from ulm.config import LTMConfig, ModelConfig, matched_without_memory
from ulm.memory import CONTROLS, Control

__all__ = ["MqarConfig"]


class TaskSection(Section):
    """A task; see `ulm.train.mqar.MqarTask`."""

    vocab_size: int = Field(8192, ge=16)
    length: int = Field(512, ge=8)
    pairs: int = Field(64, ge=1)
    reassigned: int = Field(0, ge=0)
    power: float = Field(0.01, gt=0, le=1)
    noise: bool = False

    @model_validator(mode="after")
    def _fits(self) -> TaskSection:
        from ulm.train.mqar import MqarTask

        MqarTask(**self.model_dump())
        return self


class ModelSection(Section):
    """The shape of the model with memory; the baseline is the same without it, widened to as many parameters.

    Attributes:
        n_layer, n_head, n_kv_head, head_size, d_model, d_ff, window: as in `ulm.config.ModelConfig`.
        ltm: fields of `ulm.config.LTMConfig`; `layers` must be among them.
    """

    n_layer: int = Field(2, ge=1)
    n_head: int = Field(2, ge=1)
    n_kv_head: int = Field(1, ge=1)
    head_size: int = Field(32, ge=2)
    d_model: int = Field(64, ge=8)
    d_ff: int = Field(128, ge=8)
    window: int = Field(128, ge=8)
    ltm: dict[str, Any] = Field(default_factory=lambda: {"layers": [0]})

    @property
    def reach(self) -> int:
        """Tokens that anything can travel through the windows of all blocks, one after the other."""
        return self.n_layer * (self.window - 1)

    def config(self, arm: Arm, vocab_size: int) -> ModelConfig:
        """Return the shape of an arm's model.

        Raises:
            ValueError: the fields do not fit.
        """
        fields = self.model_dump(exclude={"ltm"})
        shape = ModelConfig(vocab_size=vocab_size, ltm=LTMConfig.from_dict(self.ltm), **fields)
        return shape if arm == "with_ltm" else matched_without_memory(shape)


class EvalSection(Section):
    """What is measured.

    Attributes:
        sequences: fresh ones, scored per task, arm and seed.
        controls: null controls of the arm with memory.
    """

    sequences: int = Field(128, ge=2)
    controls: tuple[Control, ...] = CONTROLS


class MqarConfig(Section):
    """An MQAR file.

    Attributes:
        name: names the folder under `runs/`.
        seeds: of weights and sequences; each arm is trained once per seed and task.
        tasks: by name.
        optimizer: the same for all tasks and arms.
        device: a task has one thread, or one GPU.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    seeds: tuple[int, ...] = (1, 2, 3)
    tasks: dict[str, TaskSection] = Field(default_factory=lambda: {"mqar": TaskSection()}, min_length=1)
    model: ModelSection = ModelSection()
    optimizer: OptimizerSection
    device: Device = "auto"
    eval: EvalSection = EvalSection()

    @model_validator(mode="after")
    def _fits(self) -> MqarConfig:
        if not self.seeds or len(set(self.seeds)) != len(self.seeds) or min(self.seeds) < 0:
            raise ValueError("`seeds` must be different whole numbers of at least 0")
        for name, task in self.tasks.items():
            if not name.replace("-", "").replace("_", "").isalnum():
                raise ValueError(f"tasks.{name}: a name has letters, digits, - and _ only")
            for arm in ARMS:
                self.model.config(arm, task.vocab_size)
        return self
