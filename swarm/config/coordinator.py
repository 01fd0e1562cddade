"""Who directs: the `coordinator` section, and the registry of what may stand in its `kind`."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from swarm.config.engine import CoordinatorEngine
from swarm.config.section import Section, refuse_where
from swarm.errors import SwarmError
from swarm.plugins import Registry

COORDINATORS = Registry(
    "coordinator",
    "ulm_swarm.coordinators",
    "swarm.coordinator.protocol:Coordinator",
    {
        "none": "swarm.coordinator.protocol:NoCoordinator",
        "rules": "swarm.coordinator.kinds:RulesCoordinator",
        "model": "swarm.coordinator.language:LanguageCoordinator",
        "human": "swarm.coordinator.human:HumanCoordinator",
    },
)


class NoOptions(Section):
    """The options of a coordinator that has none."""


class CoordinatorTraits:
    """What a kind of coordinator needs and can do; `swarm.coordinator.protocol.Coordinator` derives from it.

    Attributes:
        Options: settings of its own, which stand in `coordinator.options`.
        directs: whether it directs anybody.
        needs_model: whether it asks a model, which `coordinator.engine` names.
        needs_playbook: whether it works only in worlds with a playbook.
        needs_reports: whether it is asked only where a topology brings it reports.
        needs_terminal: whether it talks to a person, beside the tick loop and without a time limit.
        reads_hints: whether it understands what a person writes to it in `swarm steer`.
    """

    Options: ClassVar[type[Section]] = NoOptions
    directs: ClassVar[bool] = True
    needs_model: ClassVar[bool] = False
    needs_playbook: ClassVar[bool] = False
    needs_reports: ClassVar[bool] = True
    needs_terminal: ClassVar[bool] = False
    reads_hints: ClassVar[bool] = False

    @classmethod
    def variant(cls, config: CoordinatorConfig) -> type[CoordinatorTraits]:
        """Return the class for these settings: this one, unless a kind has several forms."""
        return cls


class CoordinatorConfig(Section):
    """Who reads reports and directs agents."""

    kind: str = "none"
    """`none` directs nobody; `rules` uses the world's hand-written rules; `model` asks the language model in `engine`;
    `human` is a person at the terminal of the run, who needs no playbook and no topology. A package adds others by
    entry points in the group `ulm_swarm.coordinators`."""

    engine: CoordinatorEngine | None = None
    """The model of a coordinator that asks one. With `prompt: chat` it reads a digest in words and needs no training;
    with `prompt: plain` it must have been trained on the briefings of the world's playbook."""

    options: dict[str, Any] = Field(default_factory=dict)
    """Settings of a coordinator from another package, by its own names."""

    shuffled: bool = False
    """Null control: give each agent the directive that was meant for another, at the same cost."""

    every_ticks: int = Field(1, ge=1)
    """Ticks from one of its calls to the next."""

    temperature: float = Field(0.7, ge=0.0, le=5.0)
    """Sampling temperature of its model; 0 is greedy."""

    max_new_tokens: int = Field(64, ge=1, le=4096)
    """Hard limit of one answer of its model."""

    digest_tokens: int = Field(768, ge=64)
    """Tokens that a model in a chat reads at most; older reports are left out."""

    menu: int | None = Field(None, ge=1, le=100)
    """Directives that one briefing lists at most, in worlds whose playbook lists them; null takes the playbook's."""

    answers: Literal["picks", "marks"] = "picks"
    """How a model trained on briefings answers a menu: `picks` lists what it chooses; `marks` goes through all entries
    and writes + or - to each, kept to that form by the engine."""

    reoffer_declined: bool = False
    """Offer such a model again what it declined; for one that is often wrong."""

    @property
    def traits(self) -> type[CoordinatorTraits]:
        """What this kind of coordinator needs and can do."""
        found: type[CoordinatorTraits] = COORDINATORS.find(self.kind)
        return found.variant(self)

    @property
    def chats(self) -> bool:
        """Whether its model is asked in its chat format."""
        return self.engine is not None and self.engine.chats

    @field_validator("kind")
    @classmethod
    def _is_known(cls, kind: str) -> str:
        try:
            COORDINATORS.find(kind)
        except SwarmError as error:
            raise ValueError(str(error)) from error
        return kind

    @model_validator(mode="after")
    def _settings_fit_its_kind(self) -> CoordinatorConfig:
        traits = self.traits
        unbriefed = self.engine is None or self.chats
        for_briefed = "is for models trained on briefings (engine.prompt: plain); leave it out"
        refuse_where(
            (
                traits.needs_model and self.engine is None,
                f"kind {self.kind!r} needs `engine`, such as {{kind: ulm, model: policies/my-model}}",
            ),
            (
                self.engine is not None and not traits.needs_model,
                f"`engine` is for coordinators that ask a model, and {self.kind!r} asks none; leave it out "
                "(--set coordinator.engine=null)",
            ),
            (unbriefed and self.answers != "picks", f"`answers` {for_briefed}"),
            (unbriefed and self.reoffer_declined, f"`reoffer_declined` {for_briefed}"),
            (
                self.shuffled and not traits.directs,
                f"`shuffled` has nothing to shuffle with kind {self.kind!r}; leave it out",
            ),
            (
                self.menu is not None and not (traits.needs_model or traits.needs_terminal),
                f"`menu` is for models and people, and coordinator {self.kind!r} needs none; leave it out",
            ),
        )
        if self.engine is not None:
            self.engine.refuse_short(self.max_new_tokens)
        return self

    def checked_options(self) -> Section:
        """Return `options` as the coordinator's own `Options`.

        Raises:
            SwarmError: they are not possible.
        """
        try:
            return self.traits.Options.model_validate(self.options)
        except ValidationError as error:
            detail = error.errors(include_url=False)[0]
            name = ".".join(map(str, ("coordinator", "options", *detail["loc"])))
            raise SwarmError(f"{name}: {detail['msg'].removeprefix('Value error, ')}") from error
