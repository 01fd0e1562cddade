"""What an exact-match file may say: where keys and values come from, and in which words they are asked for.

Owns the schema of `swarm data exact-match`. It refuses to read tables and to write anything.
"""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field, model_validator

from swarm.config.section import Section

__all__ = ["CategoryConfig", "ExactMatchConfig", "QuestionsConfig", "RelationConfig"]

Generator = Literal["entities", "pairs", "preferences", "units"]


class RelationConfig(Section):
    """One thing that is asked about every key.

    Attributes:
        value: column of the table that holds the answer.
        train, valid, test: wordings of the question, or of a sentence to complete, each with `{key}`; facts are told in
            those of `train`, and the others are paraphrases of it that no training text holds.
    """

    value: str = "value"
    train: tuple[str, ...] = Field(min_length=1)
    valid: tuple[str, ...] = ()
    test: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _fits(self) -> RelationConfig:
        wordings = (*self.train, *self.valid, *self.test)
        for wording in wordings:
            if wording.count("{key}") != 1 or set(re.findall(r"[{}]", wording.replace("{key}", ""))):
                raise ValueError(f"a wording holds {{key}} once and no other braces: {wording!r}")
        if len(set(wordings)) != len(wordings):
            raise ValueError("a wording stands twice; `train`, `valid` and `test` must differ")
        return self


class QuestionsConfig(Section):
    """Questions that people asked, several of them with the same answer.

    Attributes:
        train, test: CSV files.
        question, answer: their columns.
        valid_share: share of the training questions that is kept for validation.
    """

    train: str
    test: str
    question: str = "text"
    answer: str = "category"
    valid_share: float = Field(0.1, ge=0, lt=1)


class CategoryConfig(Section):
    """Facts of one kind: a table with relations, or questions with answers.

    Attributes:
        file: table of CSV (with a header), JSON (an object of keys and values) or text, relative to this file.
        pattern: regular expression for a line of a text file, with the groups `key` and `value`.
        generate: made here instead: `pairs` of random identifiers, `units` converted, `entities` with several facts
            each, `preferences` of users.
        count: at most so many keys, chosen at random; needed where they are generated.
        key: column of the keys.
        where: only rows with these values.
        first: take what stands before the first comma of a value.
        relations: by name.
        questions: in place of all that.
        prompt: in place of the file's.
    """

    file: str | None = None
    pattern: str | None = None
    generate: Generator | None = None
    count: int | None = Field(None, ge=2)
    key: str = "key"
    where: dict[str, str] = Field(default_factory=dict)
    first: bool = False
    relations: dict[str, RelationConfig] = Field(default_factory=dict)
    questions: QuestionsConfig | None = None
    prompt: str | None = None

    @model_validator(mode="after")
    def _fits(self) -> CategoryConfig:
        sources = [name for name in ("file", "generate", "questions") if getattr(self, name) is not None]
        if len(sources) != 1:
            raise ValueError("a category has one of `file`, `generate` and `questions`")
        if (self.questions is None) != bool(self.relations):
            raise ValueError("`relations` say what is asked about the keys of a table; `questions` have none")
        if self.generate is not None and self.count is None:
            raise ValueError("`generate` needs a `count`")
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
    """An exact-match file.

    Attributes:
        name: names the folder under `runs/`.
        seed: of what is generated and chosen.
        prompt: what a model reads, with `{question}`; the question alone by default.
        answer: what it should continue with, with `{value}`.
        unseen: share of the keys of each table that is never told, half for validation and half for the test; what
            is said about those is guessed or made up.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    seed: int = Field(0, ge=0)
    prompt: str = "{question}"
    answer: str = " {value}"
    unseen: float = Field(0.2, ge=0, lt=1)
    categories: dict[str, CategoryConfig] = Field(min_length=1)

    @model_validator(mode="after")
    def _fits(self) -> ExactMatchConfig:
        prompts = [self.prompt, *(c.prompt for c in self.categories.values() if c.prompt is not None)]
        if any(prompt.count("{question}") != 1 for prompt in prompts):
            raise ValueError("`prompt` holds {question} once")
        if self.answer.count("{value}") != 1:
            raise ValueError("`answer` holds {value} once")
        return self
