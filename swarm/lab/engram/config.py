"""What an Engram evaluation may say: the model, the facts, what is trained, and how much is measured.

Owns the schema of `swarm eval`. It refuses to read files and to start anything.
"""

from typing import Annotated, Any, Literal, Self, get_args

from pydantic import Field, model_validator

from swarm.config.section import Name, Section, refuse_where
from swarm.config.training import Device, OptimizerSection
from ulm.engram.tables import EngramConfig

Arm = Literal["base", "exact", "hybrid", "engram", "lora", "lora_engram"]
ARMS: tuple[Arm, ...] = get_args(Arm)

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
    """Running text in training: before prompts, so that facts are recalled after other text, and by itself."""

    file: str
    """UTF-8 text, relative to the YAML file; not the one that is measured."""

    before: int = Field(6, ge=1)
    """Words of it that stand before half of the prompts, at most."""

    share: float = Field(0.2, ge=0, lt=1)
    """Share of rows that are text and hold no fact, so that text stays as likely as it was."""

    words: int = Field(12, ge=1)
    """Words of such a row that are to be predicted."""


class LearnSection(Section):
    """What is trained, and how; all trained arms see the same batches."""

    categories: tuple[str, ...] = ()
    """Categories of facts that are trained on; an empty list leaves out the learned arms."""

    per_relation: int = Field(50, ge=2)
    """Facts of each relation, at most."""

    engram: dict[str, Any] = Field(default_factory=lambda: {"layers": [2, 8], "rows": 5000})
    """Fields of `ulm.engram.tables.EngramConfig` for the learned tables."""

    lora_rank: int = Field(16, ge=1)
    """Rank of LoRA on all linear layers; choose it for about as many parameters as the Engram has."""

    optimizer: OptimizerSection = OptimizerSection(steps=260, batch_size=32)
    """How weights are changed, in all trained arms."""

    lr: dict[Arm, Annotated[float, Field(gt=0)]] = Field(default_factory=dict)
    """Learning rates of arms that differ from `optimizer.lr`."""

    table_lr_factor: float = Field(5.0, gt=0)
    """Learning rate of tables, in multiples of the arm's."""

    save_every: int = Field(50, ge=1)
    """Steps between checkpoints."""

    text: PracticeTextSection | None = None
    """Running text among the rows; null leaves it out."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        tables = self.engram_config()
        refuse_where(
            (not tables.layers, "engram: `layers` must name the blocks that read the tables"),
            (tables.table == "disk", "engram: a table on disk cannot be trained; leave `table` out"),
            (self.optimizer.kind == "muon", "optimizer.kind muon trains µLMs only; take adamw"),
        )
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
    """Random identifiers with random values."""

    counts: tuple[int, ...] = Field((3871, 10_000), min_length=1)
    """Pairs that are stored; each count is one measurement."""

    asked: int = Field(2000, ge=1)
    """Pairs that are asked for, at most."""

    asked_of_controls: int = Field(200, ge=1)
    """Pairs that null controls are asked for, at most."""


class EditsSection(Section):
    """Facts that are written one after the other, then asked for in the same and in other words."""

    count: int = Field(1000, ge=20)
    """Facts that are written."""

    draws: int = Field(1, ge=1)
    """Times that edits, practice and other questions are drawn anew for the arm `hybrid`; results are over all."""

    fit_share: float = Field(0.15, gt=0, le=0.5)
    """Share of all keys from which the content tier learns what paraphrases are; half as many others are asked for
    though they were never written. Neither are among the edits."""

    abstain: float = Field(0.95, gt=0, lt=1)
    """Share of unanswerable questions that the threshold leaves unanswered."""


class FaqSection(Section):
    """Questions that people asked, and questions that no stored answer fits."""

    category: str = "support"
    """Category of the facts file; it must have `questions`."""

    unanswerable: str
    """JSON file of questions about something else, relative to the YAML file: an object of lists of questions, or of
    pairs of question and label."""

    calibrate: str = "calibrate"
    """List in that file from which the threshold is set."""

    asked: str = "asked"
    """List in that file that is asked."""

    abstain: float = Field(0.95, gt=0, lt=1)
    """Share of unanswerable questions that the threshold leaves unanswered."""

    questions: int = Field(1000, ge=2)
    """Questions that are asked, at most."""


class TextSection(Section):
    """Running text on which nothing should change."""

    file: str
    """UTF-8 text, relative to the YAML file."""

    tokens: int = Field(8192, ge=64)
    """Tokens of it that are measured."""

    gate_tokens: int = Field(1024, ge=64)
    """Tokens after those, from which the gate learns what should stay as it is."""

    length: int = Field(512, ge=16)
    """Tokens of a row."""


class DistractionSection(Section):
    """A fact, then text about something else, then the question for the fact."""

    distances: tuple[int, ...] = (50, 200, 1000, 4000)
    """Tokens of text between fact and question."""

    sequences: int = Field(16, ge=2)
    """Sequences per distance, each with a fact of its own."""

    window: int = Field(64, ge=32)
    """Tokens that arms with memory still see when the question comes."""


class CostSection(Section):
    """What a token costs, at batch 1, in multiples of the bare model's time."""

    rows: tuple[int, ...] = (1000, 10_000, 100_000, 1_000_000)
    """Rows of each learned table; each count is one measurement."""

    lengths: tuple[int, ...] = (64, 512, 4000)
    """Tokens that are there already; each length is one measurement."""

    tokens: int = Field(16, ge=0)
    """Tokens that are generated per arm and turn; 0 leaves out speed and cost."""

    turns: int = Field(9, ge=1)
    """Turns of the measurement; arms alternate, so that a change of the machine's speed meets all of them."""


class EngramEvalConfig(Section):
    """An Engram file, for `swarm eval`: what hashed tables remember, against null controls and LoRA."""

    name: Name
    """Names the work folder under runs/."""

    model: str = "smollm2-135m"
    """A short name such as `smollm2-135m`, or the folder of a causal language model of transformers."""

    facts: str = "exact_match.yaml"
    """File of `swarm data exact-match`, relative to the YAML file."""

    seed: int = Field(1, ge=0)
    """Seed of weights, batches, shuffling and choices."""

    max_new_tokens: int = Field(24, ge=1)
    """Hard limit of one answer."""

    learn: LearnSection = LearnSection()
    """What is trained, and how."""

    pairs: PairsSection = PairsSection()
    """Random identifiers with random values."""

    edits: EditsSection = EditsSection()
    """Facts that are written one after the other."""

    faq: FaqSection | None = None
    """Questions that people asked; null leaves them out."""

    text: TextSection
    """Running text on which nothing should change."""

    distraction: DistractionSection = DistractionSection()
    """Text between a fact and its question."""

    cost: CostSection = CostSection()
    """What a token costs."""

    device: Device = "auto"
    """`auto`, `cpu`, `cuda` or `mps`; each task has one CPU thread, or one GPU."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        whole_rows = self.text.tokens - self.text.tokens % min(self.text.length, self.text.tokens)
        if max(self.distraction.distances, default=0) > whole_rows:
            raise ValueError("distraction.distances: there must be so many text.tokens, in whole rows of text.length")
        return self
