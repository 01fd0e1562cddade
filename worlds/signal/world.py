"""`signal-v0`: one agent sees an object, another has to rebuild it from a few letters that the first one chooses.

Owns objects, which of them are held out, who plays with whom, and the channel. It refuses to know what letters mean:
nobody teaches the language, and none is better than another that is understood.
"""

import hashlib
import random
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import product
from statistics import fmean
from typing import Any, ClassVar, Literal, Self

import networkx as nx
from pydantic import Field, model_validator

from worlds.ordered import OrderedWorld
from worlds.protocol import Info, StepResult, Turn, WorldError, WorldOptions, tool
from worlds.signal.language import entropy_bits, topographic_similarity

HELD_OUT_FRACTION = 5  # one object in five is held out of training, by hash
REACH = 2  # agents on either side, on the ring of agents, with whom an agent plays where `partners` is `met`
NOTHING = "-"  # stands for a letter that did not arrive
WAIT = "wait"

_MESSAGE = re.compile(r"message [^\n]+")
_SENT = re.compile(r"sent (?P<message>[a-z](?: [a-z])*)")
_READ_AS = re.compile(r"(?:right|wrong), read as (?P<built>[0-9](?: [0-9])*)")
_IT_WAS = re.compile(r"(?:right|wrong), it was (?P<object>[0-9](?: [0-9])*)")


class SignalOptions(WorldOptions):
    """Options of signal-v0."""

    attributes: int = Field(4, ge=1, le=6)
    """Attributes of an object."""

    values: int = Field(4, ge=2, le=10)
    """Values of an attribute."""

    letters: int = Field(26, ge=2, le=26)
    """Letters of the alphabet."""

    length: int = Field(4, ge=1, le=12)
    """Letters of a message."""

    split: Literal["held_out", "train", "any"] = "held_out"
    """Show only `held_out` objects, only those for training, or any."""

    partners: Literal["all", "met", "strangers"] = "all"
    """Who may be paired: `all`; `met`, agents at most two apart on the ring of all agents, so that each plays with four
    others; or `strangers`, all other pairs."""

    channel: Literal["open", "cut", "shuffled"] = "open"
    """What reaches a receiver: its sender's message; nothing; or the message of another pair. The last two are null
    controls."""

    reward: Literal["all", "attributes"] = "all"
    """What pays: an object with `all` attributes right, or the share of `attributes` that are right."""

    @model_validator(mode="after")
    def _can_be_split(self) -> Self:
        if (count := self.values**self.attributes) > 10_000:
            raise ValueError(f"{count:,} objects are too many; lower `attributes` or `values`")
        if self.split == "any":
            return self
        train, held_out = split_objects(self.attributes, self.values)
        if not held_out or any(len(set(column)) < self.values for column in zip(*train, strict=True)):
            raise ValueError("too few objects to hold some out and show every value; raise `attributes`, or split: any")
        return self


@lru_cache(maxsize=16)
def split_objects(attributes: int, values: int) -> tuple[tuple[tuple[int, ...], ...], tuple[tuple[int, ...], ...]]:
    """Return the objects for training and those that are held out, each in order."""
    parts: tuple[list[tuple[int, ...]], list[tuple[int, ...]]] = ([], [])
    for thing in product(range(values), repeat=attributes):
        parts[is_held_out(_text(thing))].append(thing)
    return tuple(parts[0]), tuple(parts[1])


def is_held_out(thing: str) -> bool:
    """Return whether an object, such as `2 0 3 1`, belongs to evaluation, by its hash."""
    return int.from_bytes(hashlib.sha256(thing.encode()).digest()[:8], "big") % HELD_OUT_FRACTION == 0


def _text(signs: Sequence[int | str]) -> str:
    return " ".join(map(str, signs))


def draw_pairs(agents: Sequence[str], partners: str, rng: random.Random) -> list[tuple[str, str]]:
    """Return who plays with whom as (sender, receiver), as many pairs as can be, in the order of their first agents.

    Args:
        agents: in the order of the ring.
        partners: see `SignalOptions`.
        rng: decides pairs and roles.

    Raises:
        WorldError: no two agents may be paired.
    """
    n = len(agents)
    graph = nx.Graph()
    for i in range(n):
        for j in range(i + 1, n):
            have_met = min(j - i, n - (j - i)) <= REACH
            if partners == "all" or have_met == (partners == "met"):
                graph.add_edge(i, j, weight=rng.randrange(1_000_000))
    matched = sorted(sorted(pair) for pair in nx.max_weight_matching(graph, maxcardinality=True))
    if not matched:
        raise WorldError(f"signal-v0: {n} agents have all met; `partners: strangers` needs at least {2 * REACH + 2}")
    return [(agents[i], agents[j]) if rng.random() < 0.5 else (agents[j], agents[i]) for i, j in matched]


class SignalWorld(OrderedWorld):
    """Signalling game: a sender sees an object and passes a few letters, a receiver rebuilds the object from these.

    Every episode pairs the agents anew and gives each pair an object, one agent the role of sender and the other that
    of receiver; of an odd number one waits. First all senders speak, then all receivers rebuild. Nobody says what
    letters mean. One object in five is held out by hash; every value of every attribute is among the others.

    observation  sender `object 2 0 3 1`, then `sent k d a b`; receiver `wait`, then `message k d a b`, or
                 `message - - - -` when nothing has arrived.
    actions      the sender's `k d a b`, the receiver's `2 0 3 1`, and `wait` for whoever has nothing else to do.
    report       the sender's message. Leave agents out of each other's reports (`topology: {kind: none}`), or the
                 channel is not the only way.
    feedback     in the end what the object was, to the receiver, and what the message was read as, to the sender.
    directive    none.
    reward       1 to both of a pair whose object was rebuilt with all attributes, or with `reward: attributes` the
                 share that is right; solved when all pairs' objects were rebuilt.
    ends         terminated after two steps.
    options      attributes (4), values (4), letters (26), length (4), split (held_out), partners (all), channel (open),
                 reward (all).
    """

    id: ClassVar[str] = "signal-v0"
    Options: ClassVar[type[WorldOptions]] = SignalOptions
    options: SignalOptions

    def __init__(self, num_agents: int, options: WorldOptions) -> None:
        super().__init__(num_agents, options)
        if num_agents < 2:
            raise WorldError("signal-v0 needs at least 2 agents, one to send and one to receive")
        if self.options.channel == "shuffled" and num_agents < 4:
            raise WorldError("signal-v0 shuffles messages among pairs: `channel: shuffled` needs at least 4 agents")
        o = self.options
        draw_pairs(self.possible_agents, o.partners, random.Random(0))  # noqa: S311 - refuses what cannot be paired
        self._message = re.compile(self._signs("a", o.letters, o.length))
        self._object = re.compile(self._signs("0", o.values, o.attributes))
        train, held_out = split_objects(o.attributes, o.values)
        self._objects = {"train": train, "held_out": held_out, "any": tuple(sorted(train + held_out))}[o.split]

    @staticmethod
    def _signs(first: str, count: int, length: int) -> str:
        """Return the pattern of `length` signs of `count`, parted by spaces."""
        sign = f"[{first}-{chr(ord(first) + count - 1)}]"
        return sign if length == 1 else f"{sign}( {sign}){{{length - 1}}}"

    def begin(self, seed: int, options: Mapping[str, Any]) -> None:
        """Pair the agents and draw an object for each pair; `options` change nothing."""
        rng = random.Random(seed)  # noqa: S311 - a game, not a secret
        self.pairs = draw_pairs(self.possible_agents, self.options.partners, rng)
        self.objects = [_text(rng.choice(self._objects)) for _ in self.pairs]
        self.messages = [""] * len(self.pairs)
        self.built = [""] * len(self.pairs)
        self._sends = {sender: number for number, (sender, _) in enumerate(self.pairs)}
        self._receives = {receiver: number for number, (_, receiver) in enumerate(self.pairs)}

    def _arrived(self, pair: int) -> str:
        """Return what reaches the receiver of a pair."""
        sent_by = (pair + (self.options.channel == "shuffled")) % len(self.pairs)
        message = "" if self.options.channel == "cut" else self.messages[sent_by]
        return message or _text([NOTHING] * self.options.length)

    def observe(self, agent: str) -> str:
        """Return the object or the message, when it is time for it."""
        if agent in self._sends:
            number = self._sends[agent]
            return f"object {self.objects[number]}" if self.steps == 0 else f"sent {self.messages[number] or NOTHING}"
        if agent in self._receives and self.steps > 0:
            return f"message {self._arrived(self._receives[agent])}"
        return WAIT

    def step(self, actions: Mapping[str, str]) -> StepResult:
        """Pass on messages, or take what receivers have built; then both of a pair are told and rewarded."""
        is_last, acting = self.steps == 1, self.ordered(actions)
        result = super().step(actions)
        for number, pair in enumerate(self.pairs if is_last else ()):
            for agent in pair:
                if agent in acting:
                    result.rewards[agent] = self._reward(number)
            sender = pair[0]
            if sender in acting and result.infos[sender]["valid"] and (built := self.built[number]):
                verdict = "right" if self._is_right(number) else "wrong"
                result.infos[sender]["feedback"] = f"{verdict}, read as {built}"
        return result

    def _is_right(self, number: int) -> bool:
        return self.built[number] == self.objects[number]

    def _reward(self, number: int) -> float:
        if self.options.reward == "all":
            return float(self._is_right(number))
        pairs = zip(self.built[number].split(), self.objects[number].split(), strict=False)
        return sum(one == other for one, other in pairs) / self.options.attributes

    def act(self, agent: str, action: str) -> tuple[Info, float]:
        """Take a message, an object, or `wait`."""
        if self.steps == 0 and agent in self._sends:
            if not self._message.fullmatch(action):
                return Info(
                    feedback=f"no message; say {self.options.length} letters parted by spaces", valid=False
                ), 0.0
            self.messages[self._sends[agent]] = action
            return Info(feedback="sent", valid=True, report=action), 0.0
        if self.steps == 1 and agent in self._receives:
            if not self._object.fullmatch(action):
                return Info(
                    feedback=f"no object; say {self.options.attributes} values parted by spaces", valid=False
                ), 0.0
            number = self._receives[agent]
            self.built[number] = action
            self.solved = all(map(self._is_right, range(len(self.pairs))))
            verdict = "right" if self._is_right(number) else "wrong"
            return Info(feedback=f"{verdict}, it was {self.objects[number]}", valid=True), 0.0
        valid = action == WAIT
        return Info(feedback="waited" if valid else "nothing to do now; say: wait", valid=valid), 0.0

    def has_ended(self) -> bool:
        """Return whether receivers have had their turn."""
        return self.steps >= 2

    def state(self) -> dict[str, Any]:
        """Return pairs, objects, messages, and what was built."""
        return {
            "step": self.steps,
            "solved": self.solved,
            "pairs": [list(pair) for pair in self.pairs],
            "objects": list(self.objects),
            "messages": list(self.messages),
            "built": list(self.built),
            "live": list(self.agents),
        }

    def goal(self) -> str:
        """Return what has to be passed on, and in what."""
        o = self.options
        return (
            f"be understood: {len(self.pairs)} pairs, objects of {o.attributes} attributes with {o.values} values "
            f"each, messages of {o.length} letters out of {o.letters}"
        )

    def tools(self) -> list[dict[str, Any]]:
        """Return `send`, `rebuild` and `wait`."""
        message = {"type": "string", "pattern": f"^{self._message.pattern}$", "description": "letters parted by spaces"}
        built = {"type": "string", "pattern": f"^{self._object.pattern}$", "description": "values parted by spaces"}
        return [
            tool("send", "Pass letters to who has to rebuild your object.", "{message}", message=message),
            tool("rebuild", "Say which object the message is about.", "{object}", object=built),
            tool("wait", "Do nothing; when you see no object and no message.", WAIT),
        ]

    def render(self) -> str:
        """Return a line for each pair."""
        lines = [f"signal-v0 step {self.steps}/2 · channel {self.options.channel}"]
        for number, (sender, receiver) in enumerate(self.pairs):
            said, built = self.messages[number] or NOTHING, self.built[number] or NOTHING
            lines.append(f"{sender} to {receiver}: object {self.objects[number]}, message {said}, rebuilt {built}")
        return "\n".join(lines)

    def sample_action(self, agent: str, directive: str, rng: random.Random) -> str:
        """Return random letters, a random object, or `wait`."""
        o = self.options
        if self.steps == 0 and agent in self._sends:
            return _text([chr(ord("a") + rng.randrange(o.letters)) for _ in range(o.length)])
        if self.steps == 1 and agent in self._receives:
            return _text([rng.randrange(o.values) for _ in range(o.attributes)])
        return WAIT

    def action_pattern(self, agent: str) -> str | None:
        """Return the form of what an agent may do now."""
        if self.steps == 0 and agent in self._sends:
            return self._message.pattern
        return self._object.pattern if self.steps == 1 and agent in self._receives else WAIT

    @staticmethod
    def explores(observation: str) -> bool:
        """Return whether an agent speaks: a sender tries messages, a receiver says what it takes a message for."""
        return not observation.startswith("message ")

    @classmethod
    def for_training(cls, options: WorldOptions) -> WorldOptions:
        """Return options that show no object kept for evaluation."""
        return options.model_copy(update={"split": "train"})

    @classmethod
    def holds_out(cls, options: WorldOptions, observation: str) -> bool:
        """Return whether a sender sees an object that is held out."""
        word, _, thing = observation.partition(" ")
        return word == "object" and is_held_out(thing)

    @staticmethod
    def measures(turns: Sequence[Turn]) -> dict[str, float]:
        """Return how often agents were understood, and what their messages are like.

        An agent's language is the last message that it had for each object; likeness and entropy are means over agents.
        """
        spoken: dict[str, dict[str, str]] = {}
        heard: list[bool] = []
        for turn in turns:
            word, _, rest = turn.observation.partition(" ")
            if word == "object" and turn.valid:
                spoken.setdefault(turn.agent, {})[rest] = turn.action.strip()
            elif word == "sent":
                heard.append(turn.reward == 1.0)
        languages = [
            [(thing.split(), said.split()) for thing, said in own.items()] for _, own in sorted(spoken.items())
        ]
        if not heard or not languages:
            return {}
        return {
            "understood": sum(heard) / len(heard),
            "topographic similarity": fmean(map(topographic_similarity, languages)),
            "entropy of messages (bits)": fmean(entropy_bits(said for _, said in own) for own in languages),
            "objects per agent": fmean(map(len, languages)),
        }

    @classmethod
    def relabel(cls, options: WorldOptions, observation: str, action: str, info: Info) -> list[tuple[str, str]]:
        """Return what a message was about, for its receiver; and for its sender the object that it was read as."""
        feedback = info.get("feedback", "") if info.get("valid") else ""
        if (sent := _SENT.fullmatch(observation)) and (read := _READ_AS.fullmatch(feedback)):
            return [(f"object {read['built']}", sent["message"])]
        if _MESSAGE.fullmatch(observation) and (was := _IT_WAS.fullmatch(feedback)):
            return [(observation, was["object"])]
        return []
