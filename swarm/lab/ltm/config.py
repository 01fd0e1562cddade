"""What a lab file may say: corpus, the pair of models, recall, training, evaluation.

Owns the schema of `swarm lab`. It refuses to read files and to start anything.
"""

import re
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, get_args

from pydantic import Field, model_validator

from swarm.config.corpus import SourceConfig
from swarm.config.section import NAME, PHYSICAL, Name, Section, refuse_where
from swarm.config.training import TrainingFile
from swarm.lab.ltm.arms import ArmSection, resolved
from ulm.config import PAIRS, ModelConfig, preset
from ulm.data.recall import fits
from ulm.memory import CONTROLS, Control

if TYPE_CHECKING:
    from ulm.memory.consolidation import ConsolidationConfig

Arm = Literal["baseline", "with_ltm"]
ARMS: tuple[Arm, ...] = get_args(Arm)
POLICY = "policy:"
"""Stands before the name of a policy where it is a condition of evaluation."""


class CorpusConfig(Section):
    """The texts."""

    sources: tuple[SourceConfig, ...] = Field((SourceConfig(hub="openwebtext"),), min_length=1)
    """Where documents come from, in order; each source is split by itself."""

    tokenizer: Annotated[int, Field(ge=259)] | str = 4096
    """Size of a BPE tokenizer that is trained on the training documents, or the name or path of one, such as `gpt2`."""

    val_share: float = Field(0.1, gt=0, lt=1)
    """Share of the documents that is held out."""

    seed: int = Field(0, ge=0)
    """Decides which documents are held out."""

    bin_type: Literal["uint16", "uint32"] = "uint16"
    """Type of a token on disk; `uint16` holds up to 65,536 different ones."""


class ModelSection(Section):
    """The pair: preset `ltm-SIZE` with memory, `gpt-SIZE` without it and with as many parameters."""

    size: str = "1m"
    """`1m`, `4m`, `10m` or `70m` parameters."""

    window: int = Field(128, ge=8)
    """Tokens that attention reaches back (STM)."""

    ltm: dict[str, Any] = Field(default_factory=dict)
    """Fields of `ulm.config.LTMConfig` that differ from the preset's."""

    def config(self, arm: Arm, vocab_size: int) -> ModelConfig:
        """Return the shape of an arm's model.

        Raises:
            ValueError: no such size, or the fields do not fit.
        """
        if self.size not in PAIRS:
            raise ValueError(f"unknown model.size {self.size!r}; available: {', '.join(PAIRS)}")
        name = f"{'ltm' if arm == 'with_ltm' else 'gpt'}-{self.size}"
        return preset(name, vocab_size, window=self.window, ltm=self.ltm)


def policy_of(changes: dict[str, Any]) -> tuple[dict[str, Any], "ConsolidationConfig | None"]:
    """Return what a policy says of the memory, and how it is consolidated, None for not at all.

    Raises:
        ValueError: it cannot be consolidated like that.
    """
    rules = {name: value for name, value in changes.items() if name != "consolidate"}
    if "consolidate" not in changes:
        return rules, None
    from ulm.memory.consolidation import ConsolidationConfig

    return rules, ConsolidationConfig.from_dict(changes["consolidate"])


class RecallConfig(Section):
    """Recall sequences, in training and in evaluation: keys with values, and later the keys alone."""

    rows: int = Field(2, ge=0)
    """Rows of each batch that practise recall, in both arms; the others read the corpus."""

    practice_tokens: int = Field(2048, ge=64)
    """Tokens of the longest practice sequence."""

    practice_text: float = Field(0.0, ge=0, le=1)
    """Share of practice sequences with text of the corpus between pairs and queries; the others have `filler`."""

    filler: str = " The sun was warm and the wind was still."
    """Text that is repeated where nothing is to be remembered."""

    num_keys: int = Field(256, ge=8)
    """Tokens that serve as keys."""

    num_values: int = Field(256, ge=2)
    """Tokens that serve as values."""

    num_pairs: int = Field(8, ge=1)
    """Pairs of key and value in a sequence."""

    spacing: int = Field(72, ge=8)
    """Tokens from one pair to the next."""

    distances: tuple[Annotated[int, Field(ge=2, le=2**20)], ...] = Field(
        (32, 64, 128, 256, 512, 1024, 2048, 4096), min_length=1
    )
    """Tokens between a pair and its query, for each of which recall is scored."""

    sequences: int = Field(64, ge=1)
    """Sequences that are scored, per distance and seed."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        for distance in self.distances:
            if not fits(distance, self.num_pairs, self.spacing):
                raise ValueError(f"distances: at {distance} queries fall on pairs, which stand {self.spacing} apart")
        return self


class TrainSection(Section):
    """What is read in training, and what is kept of it; the same for both arms."""

    mode: Literal["documents", "windows"] = "documents"
    """`documents` streams whole documents, window and memory carried through each; `windows` is the plain recipe of
    overlapping windows (`width`, `stride`), each a sequence of its own, in which a memory that is read from the next
    segment on can only be read if windows are wider than one segment."""

    width: int = Field(128, ge=8)
    """Tokens of a window."""

    stride: int = Field(64, ge=1)
    """Tokens from one window to the next."""

    span: int = Field(512, ge=8)
    """Tokens per row and step (documents), a multiple of the window; gradients reach back so far. A document begins
    with a window of its own, for both arms alike."""

    save_every: Annotated[int, PHYSICAL] = Field(500, ge=1)
    """Steps between saved states."""

    keep: Annotated[int, PHYSICAL] = Field(2, ge=2)
    """Saved states that are kept."""

    log_every: Annotated[int, PHYSICAL] = Field(50, ge=1)
    """Steps between lines of metrics."""

    tracking: Annotated[Literal["none", "wandb"], PHYSICAL] = "none"
    """`wandb` also sends the metrics there (WANDB_MODE=offline works)."""


class EvalSection(Section):
    """What is measured."""

    controls: tuple[Control, ...] = CONTROLS
    """Null controls that are scored beside the arm with memory."""

    policies: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Further rules of writing and forgetting by name, each with fields of `ulm.config.LTMConfig`, tried on the same
    weights; with `consolidate` among them, fields of `ulm.memory.consolidation.ConsolidationConfig`, old items are
    consolidated."""

    passages: int = Field(0, ge=0)
    """Held-out passages in which holes are filled and missing words told, and as many pairs of sentences; 0 leaves all
    of that out."""

    speed_tokens: int = Field(16_384, ge=1024)
    """Tokens that each arm reads per round when speed is measured."""

    speed_rounds: int = Field(5, ge=3)
    """Rounds of the speed measurement; arms alternate."""


class LabConfig(TrainingFile):
    """A lab file, for `swarm lab`: does a long-term memory help?"""

    name: Name
    """Names the work folder under runs/."""

    seeds: tuple[int, ...] = (1, 2, 3)
    """Seeds of weights and data order; each arm is trained once per seed."""

    with_ltm: bool = False
    """Train the arm with memory, too."""

    arms: dict[str, ArmSection] = Field(default_factory=dict)
    """Ways of learning by name, in place of the pair with and without memory; the first one is what the others are
    compared with."""

    corpus: CorpusConfig = CorpusConfig()
    """The texts."""

    model: ModelSection = ModelSection()
    """The pair of models."""

    recall: RecallConfig = RecallConfig()
    """Recall sequences."""

    train: TrainSection = TrainSection()
    """What is read in training, and what is kept of it."""

    eval: EvalSection = EvalSection()
    """What is measured."""

    @property
    def names(self) -> tuple[str, ...]:
        """The arms that are trained."""
        return tuple(self.arms) or (ARMS if self.with_ltm else ("baseline",))

    def arm(self, name: str) -> ArmSection | None:
        """Return how an arm learns; None for an arm of the pair."""
        return resolved(self.arms, name) if self.arms else None

    def shape(self, name: str, vocab_size: int) -> ModelConfig:
        """Return the shape of an arm's model.

        Raises:
            ValueError: no such size, or the fields do not fit.
        """
        arm = self.arm(name)
        has_memory = name == "with_ltm" if arm is None else arm.memory
        return self.model.config("with_ltm" if has_memory else "baseline", vocab_size)

    @property
    def has_holes(self) -> bool:
        """Whether the tokenizer needs marks for holes."""
        return bool(self.arms)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if not self.seeds or len(set(self.seeds)) != len(self.seeds) or min(self.seeds) < 0:
            raise ValueError("`seeds` must be different whole numbers of at least 0")
        ltm: Any = self.model.config("with_ltm", 4096).ltm
        refuse_where(
            (
                self.model.window % ltm.segment != 0,
                f"model.ltm.segment {ltm.segment} must divide the window {self.model.window}",
            ),
            (
                self.train.mode == "windows" and self.with_ltm and self.train.width <= ltm.segment,
                f"windows of {self.train.width} tokens are one segment of {ltm.segment}, so a memory would never be "
                "read; set train.mode: documents, or a wider train.width",
            ),
        )
        for name in self.arms:
            self._check_arm(name)
        for name, changes in self.eval.policies.items():
            if not re.fullmatch(NAME, name):
                raise ValueError(f"eval.policies: {name!r} is no name; use letters, digits, '.', '_' and '-'")
            try:
                rules, consolidation = policy_of(changes)
                self.model.model_copy(update={"ltm": {**self.model.ltm, **rules}}).config("with_ltm", 4096)
                if consolidation is not None and not rules.get("slots"):
                    raise ValueError("consolidate needs places for what it keeps; set slots")
            except ValueError as error:
                raise ValueError(f"eval.policies.{name}: {error}") from error
        keys, values, tokenizer = self.recall.num_keys, self.recall.num_values, self.corpus.tokenizer
        rows, workers, parts = self.optimizer.batch_size, self.place.workers, self.optimizer.micro_batches
        refuse_where(
            (
                isinstance(tokenizer, int) and tokenizer < keys + values + 3,
                f"corpus.tokenizer {tokenizer} is too small for recall.num_keys {keys} and recall.num_values {values}; "
                "raise it, or lower those",
            ),
            (
                self.train.span % self.model.window != 0,
                f"train.span {self.train.span} must be a multiple of the window {self.model.window}",
            ),
            (
                self.train.mode == "documents" and self.recall.rows >= rows,
                f"recall.rows {self.recall.rows} leave no row of {rows} for the corpus",
            ),
            (
                rows % (workers * parts) != 0,
                f"batch_size {rows} cannot be shared evenly by {workers} workers x {parts} micro-batches",
            ),
        )
        return self

    def _check_arm(self, name: str) -> None:
        if not re.fullmatch(NAME, name):
            raise ValueError(f"arms: {name!r} is no name; use letters, digits, '.', '_' and '-'")
        arm, rows = resolved(self.arms, name), self.optimizer.batch_size
        refuse_where(
            (self.train.mode == "windows", "arms need train.mode: documents, for their rows are documents"),
            (
                arm.recall_rows + arm.infill_rows >= rows,
                f"arms.{name}: {arm.recall_rows} recall_rows and {arm.infill_rows} infill_rows leave no row of {rows} "
                "for text",
            ),
            (
                bool(arm.consistency) and not self.model.ltm.get("slots"),
                f"arms.{name}: consistency compares a memory with what is left of it; set model.ltm.slots",
            ),
        )
