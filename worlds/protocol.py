"""What a world is and what it may bring: `World`, how it is steered (`Playbook`), what is learned of it (`Lessons`).

Owns the contract that `worlds.check.check_world` verifies, and the plain values that worlds and swarm exchange. A world
follows the semantics of PettingZoo's ParallelEnv (Terry et al., arXiv:2009.14471) with strings for observations and
actions:

- `reset` and `step` speak about all live agents at once; `agents` shrinks as agents finish.
- Termination (the task ended) and truncation (time ran out) are separate and never merged.
- An action that makes no sense is answered with feedback in `infos[agent]["feedback"]`, never with an exception.
- An agent that is missing from `actions` passes this step (budgets may stop some agents before others).
- A reward is the agent's own: an agent is not paid for what another one did. `solved` is the team's.
- Everything a world does follows from the seed given to `reset` and the actions given to `step`.

The `World` class is the one entry point of a world: it names playbook and lessons, which are imported when asked for.
"""

import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Protocol

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from typing_extensions import TypedDict


class WorldError(ValueError):
    """A user's mistake about a world: unknown id, bad options, malformed puzzle file."""


class WorldOptions(BaseModel):
    """Base of the per-world options; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


Words = Annotated[str, Field(max_length=100_000)]
"""A text that somebody shall read; the bound is against accidents."""


def _one_line(text: str) -> str:
    if not text.strip() or len(text.splitlines()) != 1:
        raise ValueError("not one line of text")
    return text


Line = Annotated[Words, AfterValidator(_one_line)]
"""A line of text that is not blank."""


class Claim(NamedTuple):
    """What an agent says that a text says of somebody; nobody vouches for it.

    Attributes:
        source: the text, by a name of its own.
        subject, subject_type: name of whom it is said, as the text has it, and of what type that is.
        relation: one of the world's `claims`.
        object, object_type: name and type of the other one; "" is the type of a text, which is a property's value.
        valid_from: since when it is so.
    """

    source: Line
    subject: Line
    subject_type: str
    relation: Line
    object: Line
    object_type: str
    valid_from: int


class Info(TypedDict, total=False):
    """What a world says to one agent beside its observation.

    Attributes:
        feedback: one line on what the last action did (always present after `step`); at most 500 characters, so it does
            not echo whole actions.
        valid: whether the last action was legal (always present after `step`).
        report: what this agent now tells others, as text; absent when there is nothing new.
        facts: observations to which this agent now knows the right action, each with that action, because it has just
            read it or was right; for memories that keep facts. Absent when there are none.
        claims: what this agent has noted of a text; for a registry. Absent when there is none.
        forged: sources that this agent now knows to be forged, for whoever has noted claims of theirs.
    """

    feedback: Annotated[str, Field(max_length=500), AfterValidator(_one_line)]
    valid: bool
    report: Line
    facts: list[tuple[Words, Words]]
    claims: list[Claim]
    forged: list[Line]


class StepResult(NamedTuple):
    """The five mappings that `World.step` returns, each keyed by agent id."""

    observations: dict[str, str]
    rewards: dict[str, float]
    terminations: dict[str, bool]
    truncations: dict[str, bool]
    infos: dict[str, Info]


class Turn(NamedTuple):
    """One action of an agent in an episode that has ended.

    Attributes:
        episode: its number in the run.
        agent: who acted.
        observation: what the world let it see.
        action: what it did.
        valid: whether that was legal.
        reward: what it earned in this step.
        feedback: what the world said of it.
    """

    episode: int
    agent: str
    observation: str
    action: str
    valid: bool
    reward: float
    feedback: str = ""


class World(ABC):
    """One text world. Subclasses say in their docstring what the card of the world says.

    Args:
        num_agents: how many agents act in this world, at least 1.
        options: validated options, an instance of the class's `Options`.

    Attributes:
        id: versioned name such as ``numbers-v0``; a change that alters results gets a new version.
        playbook: how it is steered, a `Playbook` as ``"package.module:Class"``; None where nobody wrote one.
        lessons: what can be learned before play, a `Lessons` likewise; None where there is no solver.
        levels: how many levels of difficulty `reset` knows, 0 being the easiest; options may decide.
        states_facts: whether `Info` holds `facts` at times; without, agents cannot have a memory of facts.
        claims: relation -> its flags (`functional`, `constant`, `symmetric`, `transitive`, `is_property`), of what
            `Info` holds as `claims`; empty where it never does, and agents cannot have a registry.
        possible_agents: all agent ids in their fixed order, ``a0`` .. ``a{n-1}``.
        agents: the ids still live, in the same order; empty once the episode is over.
        solved: whether the shared goal was reached in this episode.
    """

    id: ClassVar[str]
    Options: ClassVar[type[WorldOptions]] = WorldOptions
    playbook: ClassVar[str | None] = None
    lessons: ClassVar[str | None] = None
    levels: int = 1
    states_facts: ClassVar[bool] = False
    claims: ClassVar[Mapping[str, Sequence[str]]] = {}

    def __init__(self, num_agents: int, options: WorldOptions) -> None:
        if num_agents < 1:
            raise WorldError(f"{self.id} needs at least 1 agent, got {num_agents}")
        self.options = options
        self.possible_agents: list[str] = [f"a{i}" for i in range(num_agents)]
        self.agents: list[str] = []
        self.solved = False

    @abstractmethod
    def reset(self, seed: int, options: Mapping[str, Any] | None = None) -> tuple[dict[str, str], dict[str, Info]]:
        """Start an episode that depends on `seed` and `options` alone.

        Args:
            seed: any non-negative int.
            options: per-episode options; every world accepts ``episode``, the index of the episode in its run, which
                worlds that read puzzles from a file use to pick the row, and ``level``, an int below `levels`.

        Returns:
            observations and infos of all agents; an info may already carry a `report`.
        """

    @abstractmethod
    def step(self, actions: Mapping[str, str]) -> StepResult:
        """Apply one action per acting agent, in the order of `possible_agents`; total on any text."""

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """Return the whole state as JSON-able data with stable order; equal states give equal data."""

    @abstractmethod
    def goal(self) -> str:
        """Return the shared goal of the running episode as one line for coordinators and people."""

    @abstractmethod
    def tools(self) -> list[dict[str, Any]]:
        """Return the actions as JSON Schema tools: name, description, parameters, and `text`, the form a µLM emits."""

    @abstractmethod
    def render(self) -> str:
        """Return a few lines for people."""

    @abstractmethod
    def sample_action(self, agent: str, directive: str, rng: random.Random) -> str:
        """Return a random legal action for `agent` that follows the form of `directive` where it has one.

        This is the random policy of the null control: it may use what the agent sees, not what the goal needs.
        """

    def action_pattern(self, agent: str) -> str | None:
        """Return a regular expression that every well-formed action of `agent` matches, or None if there is none."""
        return None

    @classmethod
    def full_view(cls, options: WorldOptions) -> WorldOptions | None:
        """Return options of the same puzzles in which every agent sees everything, as a single agent may.

        None where there is nothing to widen.
        """
        return None

    @classmethod
    def for_training(cls, options: WorldOptions) -> WorldOptions | None:
        """Return options of puzzles that may be learned from; None where none are kept for evaluation."""
        return None

    @classmethod
    def holds_out(cls, options: WorldOptions, observation: str) -> bool:
        """Return whether an observation shows a puzzle that these options keep for evaluation, whatever they draw.

        A relabelled attempt may be one that nobody may learn from.
        """
        return False

    @classmethod
    def relabel(cls, options: WorldOptions, observation: str, action: str, info: Info) -> list[tuple[str, str]]:
        """Return what an attempt would have been right for: observations of other goals, each with its action.

        Hindsight (Andrychowicz et al., arXiv:1707.01495): who missed 24 and made 14 knows how to make 14. An attempt
        that was right gives itself, one that was illegal gives nothing. Goals that are of no use to who plays with
        these options may be left out. Where an action is right under a directive
        only, the directive is the last line of the observation, as in an agent's prompt.
        """
        return []

    @staticmethod
    def measures(turns: Sequence[Turn]) -> dict[str, float]:
        """Return what else there is to say of some episodes, by name: their actions in order -> figures."""
        return {}

    @staticmethod
    def inline(observation: str, text: str) -> str | None:
        """Return what follows a text that an agent is in the middle of writing, such as `21` for `3*7=`.

        A pure function that any process may import; None lets the agent go on by itself. It is asked where the text
        ends with `=`, for agents with `agents.inline`; a directive is the last line of the observation.
        """
        return None

    @staticmethod
    def explores(observation: str) -> bool:
        """Return whether answers to an observation are drawn at the agents' temperature.

        Where not, agents say what they hold most likely: who reads a message learns nothing from guessing.
        """
        return True

    @classmethod
    def card(cls) -> str:
        """Return the card docstring."""
        return (cls.__doc__ or "").strip()

    def ordered(self, agents: Sequence[str] | Mapping[str, Any]) -> list[str]:
        """Return the given live agents in the fixed order of `possible_agents`."""
        live = set(self.agents)
        return [agent for agent in self.possible_agents if agent in live and agent in agents]


def tool(name: str, description: str, text: str, **parameters: dict[str, Any]) -> dict[str, Any]:
    """Return one entry of `World.tools`: all parameters, given as JSON Schema, are required and there are no others."""
    return {
        "name": name,
        "description": description,
        "parameters": {
            "type": "object",
            "properties": parameters,
            "required": list(parameters),
            "additionalProperties": False,
        },
        "text": text,
    }


@dataclass(frozen=True, slots=True)
class Report:
    """What one agent told the coordinator at one tick, as plain text."""

    tick: int
    agent: str
    text: str


@dataclass(frozen=True, slots=True)
class Situation:
    """All that a playbook may know when it directs one episode at one tick.

    Attributes:
        goal: the world's goal line.
        agents: the agents that may be directed, in fixed order.
        reports: every report of this episode so far, in commit order (tick, agent).
        directives: what was directed so far: (tick, agent, text), in commit order.
        declined: (agent, directive): what the coordinator was offered for that agent and those beside it, and did not
            choose, in commit order.
        hints: what a person said to the coordinator in this episode, in order.
        seed: seeds whatever is drawn.
        skills: agent -> skill, such as `level 2` -> in which share of its last episodes it earned something there, for
            agents that learn; the same for a whole round.
        lookup: answers a question from what the swarm keeps, None where nothing is known; None without such a memory.
    """

    goal: str
    agents: tuple[str, ...]
    reports: tuple[Report, ...] = ()
    directives: tuple[tuple[int, str, str], ...] = ()
    declined: tuple[tuple[str, str], ...] = ()
    hints: tuple[str, ...] = ()
    seed: int = 0
    skills: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    lookup: Callable[[str], str | None] | None = None


@dataclass(frozen=True, slots=True)
class Briefing:
    """One prompt for a model coordinator, and what its answer means.

    Attributes:
        agents: whom the answer is for, in order.
        prompt: what the model reads.
        options: words of the answer -> the directives that they stand for, where a prompt offers a menu.
        pattern: a regular expression that the answer is kept to, None for any answer up to the end of its line.
    """

    agents: tuple[str, ...]
    prompt: str
    options: Mapping[str, str] = field(default_factory=dict)
    pattern: str | None = None


class Playbook(Protocol):
    """How a world is steered: hand-written rules, and texts for models that coordinate.

    It reads report texts and keeps nothing between calls; derive from it and the attributes with a value are set.

    Attributes:
        directive: a regular expression of the directives that the agents understand. What may be missing at its end
            is written `(?:|x)` and not `(?:x)?`, which xgrammar 0.2.8 reads wrongly in a JSON Schema.
        about: what directives look like and what they are good for, for a model that was not trained on the world.
        menu: directives that a briefing lists at most; None where briefings list none.
        answers: how a menu is answered, `picks` or `marks`; set from the coordinator's section.
    """

    directive: str
    about: str
    menu: int | None = None
    answers: str = "picks"

    @abstractmethod
    def rules(self, situation: Situation) -> dict[str, str]:
        """Return agent -> directive by the hand-written rules."""

    @abstractmethod
    def briefings(self, situation: Situation) -> list[Briefing]:
        """Return the prompts for a model coordinator, none when there is nothing to direct."""

    @abstractmethod
    def parse(self, text: str, briefing: Briefing) -> dict[str, str]:
        """Return agent -> directive as a model's answer has them; total on any text."""

    def declined(self, text: str, briefing: Briefing, cut: bool) -> list[str]:
        """Return the directives of a menu that an answer decided against; total on any text.

        Args:
            text: the answer.
            briefing: what was asked.
            cut: the answer was cut short, so it may have gone on.
        """
        return []


@dataclass(frozen=True, slots=True)
class Example:
    """One text to learn from: what is read, and the right answer.

    Attributes:
        kind: what sort of example it is, a word or two; scores are told apart by it.
        role: `agent` reads an observation, and a directive if there is one, and answers with an action; `coordinator`
            reads the prompt of a briefing, as it stands, and answers as `Playbook.parse` expects.
        observation: what is read first.
        directive: what the coordinator told the agent; empty for none.
        answer: one line, without its end.
        given: how the line begins where the answer is only its rest: read, and not learned.
    """

    kind: str
    role: Literal["agent", "coordinator"]
    observation: str
    directive: str
    answer: str
    given: str = ""


class Lessons(Protocol):
    """What can be learned of a world before play, written by somebody who knows the answers: a solver.

    Attributes:
        tasks: task -> the kinds of its examples; a policy is trained on one task.
        practice: kinds in which nothing is held out, because they show no puzzle.
        pieces: regular expression of texts that the tokenizer leaves whole, such as mentions; "" for nothing.
    """

    tasks: Mapping[str, Sequence[str]]
    practice: frozenset[str] = frozenset()
    pieces: str = ""

    @abstractmethod
    def example(self, task: str, rng: random.Random, held_out: bool, kind: str | None = None) -> list[Example]:
        """Return one example, or the calls of one whole episode for agents that remember.

        Args:
            task: one of `tasks`.
            rng: decides the example, and nothing else does.
            held_out: whether to show a puzzle that is kept for evaluation, or one that is not; never the other.
            kind: one of the task's kinds; None draws one by its share.
        """

    def corpus(self, task: str) -> Iterator[str | Example]:
        """Yield the texts that the tokenizer of a task is trained on: examples of the task, if nobody says more."""
        for index in range(2000):
            yield from self.example(task, random.Random(index), False)  # noqa: S311 - not for secrets

    def inline(self, observation: str, text: str) -> str | None:
        """Return what a memory may append to an answer while it is written, as `World.inline`; a pure function.

        In play that is its look-ups (`agents.memory: registry`); lessons, which have none, make something up.
        """
        return None

    def judge(self, example: Example, answer: str) -> bool:
        """Return whether an answer is right; total on any text. One that differs from the example's may be."""
        return answer.strip() == example.answer.strip()
