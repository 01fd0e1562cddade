"""Arms of a lab that learn in different ways: what their batches hold, and what is learned beside the next token."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, Self

from pydantic import Field, model_validator

from swarm.config.section import Section

Order = Literal["adaptive", "uniform", "linear", "reversed", "shuffled"]


class ArmSection(Section):
    """One way of learning; what it does not say is as in the arm that it is like."""

    like: str | None = None
    """Another arm, whose settings hold where this one says nothing."""

    memory: bool = True
    """Whether the model has a long-term memory; without it, it is as large."""

    conditions: bool = False
    """Whether its null controls and the policies of `eval` are measured, too; that of another arm says nothing here."""

    noise: float = Field(0.0, ge=0, lt=1)
    """Share of the input tokens of text that are replaced by random ones; labels stay as they are."""

    recall_rows: int = Field(2, ge=0)
    """Rows of each batch that practise recall."""

    practice_text: float = Field(0.0, ge=0, le=1)
    """Share of their sequences with text between pairs and queries; the others have the filler of `recall`."""

    curriculum: Order | None = None
    """How practice of recall gets harder, through longer ways and through text: `adaptive` by what is mastered;
    `uniform`, `linear`, `reversed` and `shuffled` (a linear one in random order) are controls."""

    infill_rows: int = Field(0, ge=0)
    """Rows of each batch that read passages with holes, and then what belongs into them."""

    far: float = Field(0.5, ge=0, le=1)
    """Share of those passages that are told in a text of their own, so that only the memory still has them."""

    seen: float = Field(0.5, ge=0, le=1)
    """Share of the far ones that are read whole, so that the span is recalled rather than filled in."""

    longest: int = Field(1024, ge=8)
    """Tokens of the longest text between passage and hole."""

    two_way: float = Field(0.0, ge=0, le=1)
    """Share of the steps in which windows are read in both directions, without memory, to tell hidden tokens."""

    consistency: float = Field(0.0, ge=0, lt=1)
    """Share of the gradient for saying with a consolidated memory what is said with the whole one; needs
    `model.ltm.slots`."""

    coherence: float = Field(0.0, ge=0, lt=1)
    """Share of the gradient for telling the sentence that follows from another of the same document."""

    plain: bool = False
    """Take the two shares as weights of the losses instead."""

    reader_lr: float = Field(1.0, gt=0)
    """Multiplies the learning rate of what reads the memory."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.consistency + self.coherence >= 1:
            raise ValueError(
                f"consistency {self.consistency:g} and coherence {self.coherence:g} leave nothing of 1 for "
                "reconstruction; lower them"
            )
        if not self.memory and (self.consistency or self.reader_lr != 1.0):
            raise ValueError("consistency and reader_lr are of a memory; set memory: true")
        return self


def resolved(arms: Mapping[str, ArmSection], name: str) -> ArmSection:
    """Return an arm with what it has from those that it is like.

    Raises:
        ValueError: it is like an arm that is not there, or like itself.
    """
    chain = [name]
    while (like := arms[chain[-1]].like) is not None:
        if like not in arms:
            raise ValueError(f"arms.{chain[-1]} is like {like!r}, which is no arm; there are: {', '.join(arms)}")
        if like in chain:
            raise ValueError(f"arms.{name} is like itself, by way of {' and '.join(chain[1:] or chain)}")
        chain.append(like)
    said: dict[str, object] = {}
    for one in reversed(chain):
        said |= arms[one].model_dump(include=arms[one].model_fields_set - {"like", "conditions"})
    said["conditions"] = arms[name].conditions
    return ArmSection.model_validate(said)
