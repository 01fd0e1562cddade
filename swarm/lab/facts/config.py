"""What an exact-match file may say: where keys and values come from, and in which words they are asked for.

Owns the schema of `swarm data exact-match`. It refuses to read tables and to write anything.
"""

import re
from typing import Literal, Self

from pydantic import Field, model_validator

from swarm.config.section import Name, Section, refuse_where


class RelationConfig(Section):
    """One thing that is asked about every key."""

    value: str = "value"
    """Column of the table that holds the answer."""

    train: tuple[str, ...] = Field(min_length=1)
    """Wordings of the question, or of a sentence to complete, each with `{key}`; facts are told in these."""

    valid: tuple[str, ...] = ()
    """Other wordings, for choosing settings; no training text holds them."""

    test: tuple[str, ...] = ()
    """Other wordings, for the test; no training text holds them."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        wordings = (*self.train, *self.valid, *self.test)
        for wording in wordings:
            if wording.count("{key}") != 1 or set(re.findall(r"[{}]", wording.replace("{key}", ""))):
                raise ValueError(f"a wording holds {{key}} once and no other braces: {wording!r}")
        if len(set(wordings)) != len(wordings):
            raise ValueError("a wording stands twice; `train`, `valid` and `test` must differ")
        return self


class QuestionsConfig(Section):
    """Questions that people asked, several of them with the same answer."""

    train: str
    """CSV file of the training questions, relative to the YAML file."""

    test: str
    """CSV file of the test questions, relative to the YAML file."""

    question: str = "text"
    """Column of the questions."""

    answer: str = "category"
    """Column of the answers."""

    valid_share: float = Field(0.1, ge=0, lt=1)
    """Share of the training questions that is kept for validation."""


class CategoryConfig(Section):
    """Facts of one kind: a table with relations, or questions with answers."""

    file: str | None = None
    """Table as CSV with a header, JSON (an object of keys and values) or text, relative to the YAML file; null where
    facts are generated or asked."""

    pattern: str | None = None
    """For a text file: regular expression of a line, with the groups `key` and `value`."""

    generate: Literal["entities", "pairs", "preferences", "units"] | None = None
    """Make the facts here: `pairs` of random identifiers, `units` converted, `entities` with several facts each,
    `preferences` of users."""

    count: int | None = Field(None, ge=2)
    """Keys, at most, chosen at random; needed with `generate`. null takes all."""

    key: str = "key"
    """Column of the keys."""

    where: dict[str, str] = Field(default_factory=dict)
    """Take only rows with these values: column, then value."""

    first: bool = False
    """Take what stands before the first comma of a value."""

    relations: dict[str, RelationConfig] = Field(default_factory=dict)
    """What is asked about every key, by name."""

    questions: QuestionsConfig | None = None
    """Questions with answers, in place of a table."""

    prompt: str | None = None
    """What a model reads, in place of the file's `prompt`."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        num_sources = sum(source is not None for source in (self.file, self.generate, self.questions))
        refuse_where(
            (num_sources != 1, "a category has one of `file`, `generate` and `questions`"),
            (
                (self.questions is None) != bool(self.relations),
                "`relations` say what is asked about the keys of a table; `questions` have none",
            ),
            (self.generate is not None and self.count is None, "`generate` needs a `count`"),
        )
        if self.pattern is not None:
            try:
                groups = set(re.compile(self.pattern).groupindex)
            except re.error as error:
                raise ValueError(f"`pattern` is no regular expression: {error}") from error
            if self.file is None or groups != {"key", "value"}:
                raise ValueError(
                    "`pattern` belongs to a text `file` and has the groups (?P<key>...) and (?P<value>...)"
                )
        return self


class ExactMatchConfig(Section):
    """A file for `swarm data exact-match`: questions that have one right answer."""

    name: Name
    """Names the work folder under runs/."""

    seed: int = Field(0, ge=0)
    """Seed of what is generated and chosen."""

    prompt: str = "{question}"
    """What a model reads, with `{question}`."""

    answer: str = " {value}"
    """What it should continue with, with `{value}`."""

    unseen: float = Field(0.2, ge=0, lt=1)
    """Share of the keys of each table that is never told, half for validation and half for the test: questions that can
    only be guessed."""

    categories: dict[str, CategoryConfig] = Field(min_length=1)
    """Facts by category."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        prompts = [self.prompt, *(c.prompt for c in self.categories.values() if c.prompt is not None)]
        refuse_where(
            (any(prompt.count("{question}") != 1 for prompt in prompts), "`prompt` holds {question} once"),
            (self.answer.count("{value}") != 1, "`answer` holds {value} once"),
        )
        return self
