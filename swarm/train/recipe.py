"""What a training file may say; `kind` says what is trained, and so what else stands in the file.

- `policy`: a µLM on a solver's pairs of prompt and completion.
- `memory`: a µLM with a long-term memory on whole episodes, call by call.
- `reward`: a µLM on its own attempts and random ones, judged by the world alone.
- `text`: a µLM on running text, corpus after corpus.
- `lora`: an adapter of a pretrained language model on coordination texts.
- `symmetric`: a µLM on pairs of a text and its propositions, in both directions, and on questions about them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from swarm.config.corpus import CleaningSection, SourceConfig
from swarm.config.load import load_chosen_model
from swarm.config.section import PHYSICAL, Name, Section, logical_settings, refuse_where
from swarm.config.training import TrainingFile
from swarm.errors import SwarmError
from ulm.config import ModelConfig, preset
from ulm.data.documents import CorpusSource
from ulm.symmetric.pairs import SHARES, Direction


class Recipe(TrainingFile):
    """What every training file says."""

    kind: Literal["policy", "memory", "reward", "text", "lora", "symmetric"]
    """What is trained."""

    name: Annotated[Name, PHYSICAL]
    """Names the work folder, runs/train-NAME."""

    seed: int = Field(0, ge=0, lt=2**63)
    """Seed of weights and examples."""

    init: Annotated[str | None, PHYSICAL] = None
    """Folder of the checkpoint or adapter that the training starts from, relative to the file; null starts anew."""

    save_every: Annotated[int, PHYSICAL] = Field(200, ge=1)
    """Steps between saved states."""

    log_every: Annotated[int, PHYSICAL] = Field(50, ge=1)
    """Steps between lines of metrics."""

    score_examples: Annotated[int, PHYSICAL] = Field(500, ge=1)
    """Held-out examples of each kind, or episodes, that the result is scored on."""

    out: Annotated[str, PHYSICAL]
    """Folder of the result, relative to the file."""

    def identity(self) -> dict[str, Any]:
        """Return the settings that decide the result. Length may change: the checkpoint tells from which step on."""
        found = logical_settings(self)
        del found["optimizer"]["steps"]
        return found


class WorldRecipe(Recipe):
    """What learns from a world."""

    world: str
    """World that is learned."""


class TaughtRecipe(WorldRecipe):
    """What learns from a world's lessons."""

    task: str
    """Which of its lessons."""


class ModelSection(Section):
    """The µLM and its tokenizer."""

    preset: str = "1m"
    """A size of `ulm.config.PRESETS`; with memory `ltm-` and a size of `ulm.config.PAIRS`."""

    window: int = Field(128, ge=8)
    """Tokens that attention reaches back (STM)."""

    ltm: dict[str, Any] = Field(default_factory=dict)
    """Fields of `ulm.config.LTMConfig` that differ from the preset's."""

    vocab_size: int = Field(1024, ge=259)
    """Upper limit of the BPE tokenizer, which is trained on the lessons' texts."""

    spell_numbers: bool = False
    """Read numbers after a space digit by digit."""

    def config(self, vocab_size: int) -> ModelConfig:
        """Return the shape of the model.

        Raises:
            ValueError: no such preset, or fields that do not fit.
        """
        return preset(self.preset, vocab_size, window=self.window, **({"ltm": self.ltm} if self.ltm else {}))


class PolicyRecipe(TaughtRecipe):
    """A µLM that learns completions."""

    kind: Literal["policy"]

    model: ModelSection = ModelSection()
    """What is trained."""

    inline: bool = False
    """Whether the world answers while an answer is written (`World.inline`), as with `agents.inline`. What it says is
    read and not learned, and it answers while the result is scored."""

    max_new_tokens: Annotated[int, PHYSICAL] = Field(64, ge=1, le=4096)
    """Longest answer while the result is scored."""

    @model_validator(mode="after")
    def _has_no_memory(self) -> Self:
        if self.model.config(self.model.vocab_size).ltm is not None:
            raise ValueError(f"model.preset {self.model.preset} has a long-term memory; set kind: memory")
        return self


class MemoryRecipe(TaughtRecipe):
    """A µLM that learns from whole episodes, its memory carried through each."""

    kind: Literal["memory"]

    model: ModelSection = ModelSection(preset="ltm-1m")
    """What is trained; a preset with memory."""

    span: int = Field(512, ge=8)
    """Tokens per row and step, a multiple of the memory's segment; gradients reach back so far."""

    @model_validator(mode="after")
    def _has_memory(self) -> Self:
        ltm = self.model.config(self.model.vocab_size).ltm
        if ltm is None:
            raise ValueError(f"model.preset {self.model.preset} has no long-term memory; take one of the ltm presets")
        if self.span % ltm.segment:
            raise ValueError(f"span {self.span} must be a multiple of the memory's segment {ltm.segment}")
        return self


class RewardRecipe(WorldRecipe):
    """A µLM that learns from a world's reward alone: no solver, no lessons.

    Training goes in rounds of `every` steps. Each begins with attempts at new puzzles, random legal ones
    (`World.sample_action`) and own ones where nobody was right; random weights try nothing in the first round. What was
    right is imitated, and what would have been right for another goal (`World.relabel`).
    """

    kind: Literal["reward"]

    options: dict[str, Any] = Field(default_factory=dict)
    """Options of the world; puzzles are those that may be learned from (`World.for_training`), scored on the others."""

    model: ModelSection = ModelSection()
    """What is trained. A new tokenizer is trained on texts of random attempts."""

    every: int = Field(200, ge=1)
    """Steps of a round."""

    puzzles: int = Field(1000, ge=1)
    """New puzzles of each round."""

    explore: int = Field(100, ge=0)
    """Random legal attempts at each of them; they cost no tokens."""

    attempts: int = Field(0, ge=0)
    """Own attempts at each puzzle of a round to which no right answer is known yet; 0 for none."""

    temperature: float = Field(1.0, gt=0, le=5)
    """Of own attempts."""

    max_new_tokens: int = Field(32, ge=1, le=4096)
    """Longest answer."""

    hindsight: float = Field(0.5, ge=0, le=1)
    """Share of examples that are answers to relabelled goals; the others answer puzzles that the world has posed."""

    per_task: int = Field(3, ge=1)
    """Distinct right answers that are kept for each prompt: the shortest."""

    score_examples: int = Field(500, ge=1)
    """Held-out puzzles that the result is scored on; nothing is learned about them."""

    @model_validator(mode="after")
    def _can_start(self) -> Self:
        refuse_where(
            (
                self.model.config(self.model.vocab_size).ltm is not None,
                f"model.preset {self.model.preset} has a long-term memory, which `reward` does not train",
            ),
            (not self.explore and self.init is None, "random weights need random attempts; set `explore`, or `init`"),
            (not self.explore and not self.attempts, "nobody would try anything; set `explore` or `attempts`"),
        )
        return self


class StageSection(SourceConfig):
    """One corpus of a ladder, and how much is trained on it."""

    share: float = Field(1.0, gt=0)
    """Its part of `optimizer.steps`, compared with those of the other stages; a step trains on batch_size x span
    tokens."""

    mixing: float = Field(0.0, ge=0, lt=1)
    """Share of the rows of each batch that read the corpora of the stages before; in the first there are none."""

    cleaning: CleaningSection = CleaningSection()
    """What is left out of it."""

    def source(self, beside: Path) -> CorpusSource:
        """Return the source with its rules of cleaning; paths are relative to a folder."""
        return replace(super().source(beside), cleaning=self.cleaning.rules())


class TextRecipe(Recipe):
    """A µLM that learns running text, corpus after corpus.

    All corpora are prepared before the first step, with one tokenizer, into runs/train-NAME/data; what one holds out,
    none trains on. At the end of each stage the held-out parts of its corpus and of those before are scored: bits per
    byte.
    """

    kind: Literal["text"]

    model: ModelSection = ModelSection(preset="gpt-4m", window=256, vocab_size=4096)
    """What is trained; a preset without memory."""

    stages: tuple[StageSection, ...] = Field(min_length=1)
    """The corpora, in order."""

    order: Literal["given", "reversed"] = "given"
    """`reversed` trains on the same corpora from the last to the first: the null control of an order."""

    span: int = Field(256, ge=8)
    """Tokens per row and step: windows of the corpus, its documents one after the other."""

    val_share: float = Field(0.05, gt=0, lt=1)
    """Share of each corpus' documents that is held out."""

    score_examples: Annotated[int, PHYSICAL] = Field(100, ge=1)
    """Held-out documents of each corpus that are scored at most, and of long ones so many as hold 100,000 tokens."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        rows, parts = self.optimizer.batch_size, self.place.workers * self.optimizer.micro_batches
        titles, ends = [stage.source(Path()).title for stage in self.stages], self.ends()
        refuse_where(
            (
                self.model.config(self.model.vocab_size).ltm is not None,
                f"model.preset {self.model.preset} has a long-term memory; take a gpt preset, or `swarm lab`",
            ),
            (self.model.spell_numbers, "model.spell_numbers is for lessons; leave it out"),
            (rows % parts, f"batch_size {rows} cannot be shared evenly by {parts} workers x micro-batches"),
            (len(set(titles)) < len(titles), f"several stages are called {titles}; tell them apart by `name`"),
            (
                len({0, *ends}) <= len(ends),
                f"optimizer.steps {self.optimizer.steps} are too few for stages that end at {ends}; raise it, or the "
                "share of the small ones",
            ),
            *(
                (
                    stage.mixing and not 0 < self.mixed_rows(stage) < rows,
                    f"mixing {stage.mixing} is {self.mixed_rows(stage)} of {rows} rows; change it, or raise batch_size",
                )
                for stage in self.stages
            ),
        )
        return self

    def in_order(self) -> list[int]:
        """Return the numbers of the stages in the order of training."""
        numbers = list(range(len(self.stages)))
        return numbers if self.order == "given" else numbers[::-1]

    def ends(self) -> list[int]:
        """Return the step after the last one of each stage, in the order of training."""
        shares = list(accumulate(self.stages[number].share for number in self.in_order()))
        return [round(self.optimizer.steps * done / shares[-1]) for done in shares]

    def mixed_rows(self, stage: StageSection) -> int:
        """Return how many rows of a batch read the corpora of the stages before; in the first there are none."""
        return round(stage.mixing * self.optimizer.batch_size)


class LoraRecipe(TaughtRecipe):
    """An adapter (LoRA; Hu et al., arXiv:2106.09685) on every linear layer of a language model that stays as it is."""

    kind: Literal["lora"]

    model: str
    """The base, a name of `swarm models list` or a folder."""

    runs: tuple[str, ...] = ()
    """For task `runs`: run folders relative to the file, whose solved episodes show what to choose."""

    rank: int = Field(8, ge=1, le=256)
    """Rank of the two matrices beside each linear layer."""

    alpha: int = Field(16, ge=1)
    """The product of the two matrices is scaled by alpha / rank."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        refuse_where(
            ((self.task == "runs") != bool(self.runs), "`runs` names run folders for task 'runs', and only for it"),
            (self.optimizer.kind == "muon", "optimizer.kind muon trains µLMs only; take adamw"),
        )
        return self


class SharesSection(Section):
    """How often each direction is learned, relative to the others; 0 leaves one out."""

    parse: float = Field(SHARES["parse"], ge=0)
    """A text to its propositions."""

    verbalize: float = Field(SHARES["verbalize"], ge=0)
    """Propositions to a text."""

    ask: float = Field(SHARES["ask"], ge=0)
    """A question to its look-up."""

    def by_direction(self) -> dict[Direction, float]:
        """Return them by direction."""
        return {"parse": self.parse, "verbalize": self.verbalize, "ask": self.ask}


class SymmetricRecipe(Recipe):
    """A µLM that reads and writes propositions (`ulm.symmetric`): one decoder, three directions.

    A file of pairs has lines such as `{"text": "[0] works for [1] .", "propositions": "[0] works_for [1]"}`.
    """

    kind: Literal["symmetric"]

    model: ModelSection = ModelSection(vocab_size=2048)
    """What is trained. Each relation is a token of its own."""

    pairs: Annotated[str, PHYSICAL]
    """File of the pairs that are learned, relative to the recipe."""

    held_out: Annotated[str, PHYSICAL]
    """File of the pairs that the result is scored on; texts that are learned are left out."""

    relations: tuple[str, ...] = ()
    """Relations that may be written beside those of `pairs`, such as those that a registry declares."""

    shares: SharesSection = SharesSection()
    """How often each direction is learned."""

    @model_validator(mode="after")
    def _learns_something(self) -> Self:
        refuse_where(
            (
                not sum(self.shares.by_direction().values()),
                "shares are all 0, so nothing would be learned; raise one",
            ),
            (
                self.model.config(self.model.vocab_size).ltm is not None,
                f"model.preset {self.model.preset} has a long-term memory, which `symmetric` does not train",
            ),
        )
        return self


RECIPES: dict[str, type[Recipe]] = {
    "policy": PolicyRecipe,
    "memory": MemoryRecipe,
    "reward": RewardRecipe,
    "text": TextRecipe,
    "lora": LoraRecipe,
    "symmetric": SymmetricRecipe,
}


def load_recipe(path: Path, overrides: Sequence[str] = (), workers: int | None = None) -> Recipe:
    """Read a training file.

    Args:
        path: the YAML file.
        overrides: texts such as ``optimizer.steps=4``.
        workers: replaces `place.workers`.

    Raises:
        SwarmError: one line per mistake of the file and the overrides.
    """

    def schema(data: Mapping[str, Any]) -> type[Recipe]:
        if (kind := data.get("kind")) not in RECIPES:
            raise SwarmError(f"{path}: kind is {kind!r}; allowed: one of {', '.join(RECIPES)}")
        return RECIPES[kind]

    return load_chosen_model(path, schema, [*overrides, *([] if workers is None else [f"place.workers={workers}"])])
