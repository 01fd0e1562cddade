"""What an Engram evaluation may say: the model, the facts, what is trained, and how much is measured.

Owns the schema of `swarm eval`. It refuses to read files and to start anything.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from swarm.config.section import Section
from swarm.config.training import Device, OptimizerSection
from ulm.engram.tables import EngramConfig

__all__ = ["ARMS", "CONTROLS", "LEARNED", "LEARNED_ARMS", "Arm", "EngramEvalConfig"]

Arm = Literal["base", "exact", "hybrid", "engram", "lora", "lora_engram"]
ARMS: tuple[Arm, ...] = ("base", "exact", "hybrid", "engram", "lora", "lora_engram")

LEARNED_ARMS: tuple[Arm, ...] = ("engram", "lora", "lora_engram")

LEARNED = (*LEARNED_ARMS, "engram_capacity_1")
"""What is trained: these arms, and the null control whose tables have one row per head."""

CONTROLS: dict[str, tuple[str, ...]] = {
    "exact": ("shuffled", "capacity_1"),
    "hybrid": ("shuffled", "capacity_1"),
    "engram": ("shuffled", "capacity_1"),
    "lora_engram": ("shuffled",),
}
"""Null controls by arm. `shuffled`: each key has another key's value, each used row of a table another used row.
`capacity_1`: the last fact alone is kept, or every head has one row (trained like that)."""


class PracticeTextSection(Section):
    """Running text in training: before prompts, so that facts are recalled behind other text, and by itself.

    Attributes:
        file: UTF-8 text; not the one that is measured.
        before: half of the prompts have 1 to so many words of it before them.
        share: of all rows that are text and no fact, so that text stays as likely as it was.
        words: of such a row, that are to be predicted.
    """

    file: str
    before: int = Field(6, ge=1)
    share: float = Field(0.2, ge=0, lt=1)
    words: int = Field(12, ge=1)


class LearnSection(Section):
    """What is trained, and how; all trained arms see the same batches.

    Attributes:
        categories: of the facts that are told to them; empty leaves out the learned arms.
        per_relation: at most so many facts of each relation.
        engram: fields of `ulm.engram.tables.EngramConfig` for the learned tier.
        lora_rank: of LoRA over all linear layers; choose it for about as many parameters as the Engram has.
        optimizer: of all trained arms.
        lr: learning rates of arms that have another one; of `engram_capacity_1` it is the Engram's.
        table_lr_factor: of tables, in multiples of the rate.
        save_every: steps between checkpoints.
        text: running text among the rows; None leaves it out.
    """

    categories: tuple[str, ...] = ()
    per_relation: int = Field(50, ge=2)
    engram: dict[str, Any] = Field(default_factory=lambda: {"layers": [2, 8], "rows": 5000})
    lora_rank: int = Field(16, ge=1)
    optimizer: OptimizerSection = OptimizerSection(steps=260, batch_size=32)
    lr: dict[Arm, Annotated[float, Field(gt=0)]] = Field(default_factory=dict)
    table_lr_factor: float = Field(5.0, gt=0)
    save_every: int = Field(50, ge=1)
    text: PracticeTextSection | None = None

    @model_validator(mode="after")
    def _fits(self) -> LearnSection:
        if not self.engram_config().layers:
            raise ValueError("engram: `layers` must name the blocks that read the tables")
        if self.engram_config().table == "disk":
            raise ValueError("engram: a table on disk cannot be trained; leave `table` out")
        if self.optimizer.kind == "muon":
            raise ValueError("optimizer.kind muon trains µLMs only; take adamw")
        return self

    def optimizer_of(self, arm: str) -> OptimizerSection:
        """Return how an arm is trained."""
        name: Any = "engram" if arm == "engram_capacity_1" else arm
        return self.optimizer.model_copy(update={"lr": self.lr.get(name, self.optimizer.lr)})

    def engram_config(self, **changes: Any) -> EngramConfig:
        """Return the learned tier, without the exact one.

        Raises:
            ValueError: a field is unknown or out of range.
        """
        return EngramConfig.from_dict({**self.engram, "exact": False, **changes})


class PairsSection(Section):
    """Random identifiers with random values.

    Attributes:
        counts: how many are stored; each count is one measurement.
        asked: at most so many of them are asked for.
        asked_of_controls: the same under null controls.
    """

    counts: tuple[int, ...] = Field((3871, 10_000), min_length=1)
    asked: int = Field(2000, ge=1)
    asked_of_controls: int = Field(200, ge=1)


class EditsSection(Section):
    """Facts written one after the other, then asked for in the same and in other words.

    Attributes:
        count: how many.
        fit_share: share of all keys from which the content tier learns what paraphrases are; half as many others are
            asked for though they were never written. Neither are among the edits.
        abstain: share of unanswerable questions that the threshold is set to leave unanswered.
        draws: how often edits, practice and questions elsewhere are drawn anew for the hybrid; results are of all.
    """

    count: int = Field(1000, ge=20)
    draws: int = Field(1, ge=1)
    fit_share: float = Field(0.15, gt=0, le=0.5)
    abstain: float = Field(0.95, gt=0, lt=1)


class FaqSection(Section):
    """Questions that people asked, and questions that no stored answer fits.

    Attributes:
        category: of the facts' file; it must have `questions`.
        unanswerable: JSON file of questions about something else: an object of lists of questions, or of pairs of
            question and label.
        calibrate, asked: the list from which the threshold is set, and the one that is asked.
        abstain: share of unanswerable questions that the threshold is set to leave unanswered.
        questions: at most so many questions are asked.
    """

    category: str = "support"
    unanswerable: str
    calibrate: str = "calibrate"
    asked: str = "asked"
    abstain: float = Field(0.95, gt=0, lt=1)
    questions: int = Field(1000, ge=2)


class TextSection(Section):
    """Running text on which nothing should change.

    Attributes:
        file: UTF-8 text.
        tokens: of it, read in rows of `length`.
        gate_tokens: of what follows, from which the gate learns what should stay as it is.
    """

    file: str
    tokens: int = Field(8192, ge=64)
    gate_tokens: int = Field(1024, ge=64)
    length: int = Field(512, ge=16)


class DistractionSection(Section):
    """A fact, then text about something else, then the question for the fact.

    Attributes:
        distances: tokens of text between.
        sequences: per distance, each with a fact of its own.
        window: tokens that the arms with memory still see when the question comes.
    """

    distances: tuple[int, ...] = (50, 200, 1000, 4000)
    sequences: int = Field(16, ge=2)
    window: int = Field(64, ge=32)


class CostSection(Section):
    """What a token costs, at batch 1, in the time of the bare model.

    Attributes:
        rows: of each table of the learned tier.
        lengths: tokens that are there already.
        tokens: generated per arm and turn; 0 leaves speed and cost out.
        turns: the arms take turns, so that a change of the machine's speed meets all of them.
    """

    rows: tuple[int, ...] = (1000, 10_000, 100_000, 1_000_000)
    lengths: tuple[int, ...] = (64, 512, 4000)
    tokens: int = Field(16, ge=0)
    turns: int = Field(9, ge=1)


class EngramEvalConfig(Section):
    """An Engram evaluation.

    Attributes:
        name: names the folder under `runs/`.
        model: of `swarm models list`, or the folder of a causal language model of transformers.
        facts: file of `swarm data exact-match`.
        seed: of weights, batches, shuffling and choices.
        max_new_tokens: of an answer.
        device: a task has one thread, or one GPU.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    model: str = "smollm2-135m"
    facts: str = "exact_match.yaml"
    seed: int = Field(1, ge=0)
    max_new_tokens: int = Field(24, ge=1)
    learn: LearnSection = LearnSection()
    pairs: PairsSection = PairsSection()
    edits: EditsSection = EditsSection()
    faq: FaqSection | None = None
    text: TextSection
    distraction: DistractionSection = DistractionSection()
    cost: CostSection = CostSection()
    device: Device = "auto"

    @model_validator(mode="after")
    def _fits(self) -> EngramEvalConfig:
        whole_rows = self.text.tokens - self.text.tokens % min(self.text.length, self.text.tokens)
        if max(self.distraction.distances, default=0) > whole_rows:
            raise ValueError("distraction.distances: there must be so many text.tokens, in whole rows of text.length")
        return self
