"""A person in the loop: as the coordinator, or as the one who approves what the coordinator says.

Owns the talk with that person: what is shown, what can be typed, and what it costs. It sits beside the tick loop and
never in a host, for nobody's thinking is cut by a time limit. Whatever is typed, the answer is a line and another
question; the end of the input stops the run as Ctrl-C does, so that nothing is directed by mistake.
"""

import contextlib
import sys
from collections.abc import Sequence
from dataclasses import replace

from swarm.config.experiment import ExperimentConfig
from swarm.coordinator.digest import digest_lines
from swarm.coordinator.kinds import book_for, make_coordinator
from swarm.coordinator.protocol import Coordinator, CountTokens, Setup, Terminal
from swarm.errors import SwarmError
from swarm.messages import DirectReply, DirectRequest, Operator, Pool
from swarm.record.records import Review, in_agent_order
from swarm.text import checked_text, printable
from worlds.protocol import Playbook

_EDITING = [
    "a0: TEXT     directs a0 with TEXT; nothing after the colon takes its directive away",
    "all: TEXT    directs every agent",
    "none         directs nobody",
]
_ALWAYS = ["more         shows the rest of the digest", "quit         stops the run; `swarm resume` goes on from here"]


def at_terminal() -> Terminal:
    """Return the terminal of this process.

    Raises:
        SwarmError: its standard input is none.
    """
    if sys.stdin is None or not sys.stdin.isatty():
        raise SwarmError(
            "a person takes part at a terminal, and standard input is none: leave --approve out, "
            "or set coordinator.kind to something else than human"
        )
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401  # lines can be edited and recalled

    return Terminal(input, _print)


def _print(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def operator_for(config: ExperimentConfig, terminal: Terminal | None) -> Operator | None:
    """Return what the person at `terminal` does in an experiment, None where there is nobody.

    Raises:
        SwarmError: the experiment needs a person and there is none, or has nothing to approve.
    """
    coordinator = config.coordinator
    if terminal is None:
        if coordinator.traits.needs_terminal:
            raise SwarmError(
                f"coordinator {coordinator.kind!r} is a person at a terminal, and here is none; use `swarm run`"
            )
        return None
    if coordinator.traits.needs_terminal:
        return Director(config, terminal)
    for section, directs in (("coordinator", coordinator.traits.directs), ("topology", config.topology.kind != "none")):
        if not directs:
            raise SwarmError(f"with {section}.kind: none nobody is directed, so there is nothing to approve")
    return Approver(terminal, book_for(coordinator, config.world.id), coordinator.traits.reads_hints)


class _AtTerminal:
    """Whoever talks to the person at a terminal."""

    def __init__(self, terminal: Terminal) -> None:
        self.terminal = terminal

    def _say(self, *lines: str) -> None:
        for line in lines:
            self.terminal.say(printable(line))

    def on_episode_end(self, episode: int, reason: str, ticks: int, tokens: int) -> None:
        """Tell the person how an episode ended."""
        self._say(f"episode {episode} ended, {reason}: {ticks} ticks, {tokens:,} tokens")


class Director(_AtTerminal):
    """The operator of a run whose coordinator is a person: that coordinator is made and asked beside the tick loop."""

    def __init__(self, config: ExperimentConfig, terminal: Terminal) -> None:
        super().__init__(terminal)
        self._config = config
        self._coordinator: Coordinator | None = None

    def direct(self, requests: Sequence[DirectRequest], pool: Pool) -> list[DirectReply]:
        """Ask the coordinator, whose tokens the pool counts."""
        if self._coordinator is None:
            section, world_id = self._config.coordinator, self._config.world.id
            self._coordinator = make_coordinator(section, world_id, None, pool.count_tokens, terminal=self.terminal)
        return self._coordinator.direct(requests)


class _Draft:
    """The directives of one episode while a person writes them.

    Attributes:
        reply: what is directed, and charged, if the person writes nothing.
        hints: what the person said to the coordinator.
    """

    def __init__(self, request: DirectRequest, reply: DirectReply, count_tokens: CountTokens) -> None:
        self.request, self.reply = request, reply
        self.hints: list[str] = []
        self.told = dict(reply.directives)
        self._count_tokens = count_tokens

    def write(self, line: str) -> None:
        """Take in a line `a0: text`.

        Raises:
            SwarmError: it cannot be meant; nothing has changed.
        """
        agents = self.request.agents
        name, colon, text = map(str.strip, line.partition(":"))
        if not colon:
            raise SwarmError(f"not understood: {line}; write AGENT: TEXT, or ? for help")
        if name not in (*agents, "all"):
            some = " ".join(agents[:12]) + (" ..." if len(agents) > 12 else "")
            raise SwarmError(f"no agent {name!r} can be directed; there are: {some}")
        self.told |= dict.fromkeys(agents if name == "all" else (name,), checked_text(text) if text else "")

    def directives(self) -> dict[str, str]:
        """Return agent -> text, in the order of the agents."""
        return {agent: self.told[agent] for agent in self.request.agents if self.told.get(agent)}

    def cost(self, texts: Sequence[str]) -> int:
        """Return the tokens of these texts, which the person wrote.

        Raises:
            SwarmError: the episode cannot pay for them.
        """
        written = sum(self._count_tokens(texts))
        tokens, limit = self.reply.tokens + written, self.request.max_tokens
        if written and limit is not None and tokens > limit:
            raise SwarmError(f"that takes {tokens:,} tokens and the episode has {limit:,} left; shorten or remove")
        return written

    def result(self) -> DirectReply:
        """Return the reply as the person wants it.

        Raises:
            SwarmError: the episode cannot pay for it.
        """
        directives = self.directives()
        own = [text for agent, text in directives.items() if self.reply.directives.get(agent) != text]
        written = self.cost([*own, *self.hints])
        return replace(self.reply, directives=directives, generated_tokens=self.reply.generated_tokens + written)


class _Talk(_AtTerminal):
    """What both roles of a person have in common: the digest, the prompt, and the words that always work.

    Attributes:
        num_lines: of the digest that are shown at once; `more` shows the rest.
        prompt: asks for a line.
        help: what `?` shows.
    """

    num_lines: int
    prompt: str
    help: Sequence[str]

    def __init__(self, terminal: Terminal, book: Playbook | None) -> None:
        super().__init__(terminal)
        self.book = book
        self._rest: list[str] = []

    def _show(self, request: DirectRequest) -> None:
        lines = digest_lines(request, self.book.briefings(request) if self.book else [])
        self._say("", f"episode {request.key[0]} tick {request.key[1]}", *lines[: self.num_lines])
        self._rest = lines[self.num_lines :]
        if self._rest:
            self._say(f"({len(self._rest)} lines more: more)")

    def _take(self, draft: _Draft, line: str) -> bool:
        """Take in what the person wrote; return whether it is a hint.

        Raises:
            SwarmError: it cannot be meant, or not be paid.
        """
        draft.write(line)
        return False

    def _taken(self, draft: _Draft, is_hint: bool) -> None:
        """Go on after a line that was taken in."""

    def _finished(self, draft: _Draft) -> DirectReply:
        """Take in lines until one ends the draft and the episode can pay for it.

        Raises:
            KeyboardInterrupt: the person stops the run.
        """
        while True:
            try:
                line = self.terminal.ask(self.prompt).strip()
                if line == "quit":
                    raise KeyboardInterrupt
                if line == "none":
                    draft.told = {}
                if line in ("", "none"):
                    return draft.result()
                if line == "?":
                    self._say(*self.help)
                    continue
                if line == "more":
                    self._say(*(self._rest or ["that was all"]))
                    self._rest = []
                    continue
                is_hint = self._take(draft, line)
            except EOFError:
                self._say("")
                raise KeyboardInterrupt from None
            except UnicodeDecodeError:
                self._say("that was no text; once more, please")
            except SwarmError as error:
                self._say(str(error))
            else:
                self._taken(draft, is_hint)


class HumanCoordinator(_Talk, Coordinator):
    """A person who directs: is shown the digest and writes a line for each agent.

    Charged as the rules are: for the reports that arrived since the last time, and for the directives.
    """

    needs_reports = False
    needs_terminal = True
    reads_hints = True
    num_lines = 40
    prompt = "> "
    help = ("Enter        is the end: what was written is directed", *_EDITING, *_ALWAYS)

    def __init__(self, setup: Setup) -> None:
        if setup.terminal is None:
            raise SwarmError("coordinator 'human' is a person at a terminal, and here is none")
        Coordinator.__init__(self, setup)
        _Talk.__init__(self, setup.terminal, setup.book)

    def direct(self, requests: Sequence[DirectRequest]) -> list[DirectReply]:
        """Ask the person about one request after the other; who cannot pay for reading is not asked."""
        return [self._direct(request) for request in requests]

    def _direct(self, request: DirectRequest) -> DirectReply:
        read = sum(self.setup.count_tokens(request.news))
        if request.max_tokens is not None and read > request.max_tokens:
            return DirectReply(request.key)
        self._show(request)
        self._say("Direct agents, a line for each, such as a0: TEXT; an empty line is the end, ? shows help.")
        reply = DirectReply(request.key, prompt_tokens=read)
        return self._finished(_Draft(request, reply, self.setup.count_tokens))


class Approver(_Talk):
    """A person who sees what the coordinator says before agents do, and may say something else.

    The episode is charged for what the person writes, beside all that the coordinator used, also when it was asked
    again.

    Args:
        terminal: where the person is.
        book: the world's playbook, None where it has none.
        reads_hints: whether the coordinator understands what is said to it.
    """

    num_lines = 10
    prompt = "approve? "
    _pool: Pool

    def __init__(self, terminal: Terminal, book: Playbook | None, reads_hints: bool) -> None:
        super().__init__(terminal, book)
        self.reads_hints = reads_hints
        hint = ["hint: TEXT   asks the coordinator again, which reads TEXT now and for the rest of the episode"]
        self.help = ("Enter        approves", *_EDITING, *(hint if reads_hints else []), *_ALWAYS)

    def direct(self, requests: Sequence[DirectRequest], pool: Pool) -> list[DirectReply]:
        """Ask the coordinator, then the person about one of its replies after the other."""
        self._pool = pool
        return [self._review(*pair) for pair in zip(requests, pool.direct(requests), strict=True)]

    def _review(self, request: DirectRequest, reply: DirectReply) -> DirectReply:
        draft = _Draft(request, reply, self._pool.count_tokens)
        self._show(request)
        self._present(draft)
        result = self._finished(draft)
        review: Review = {"answer": "approved"}
        if result.directives != draft.reply.directives:
            review = {"answer": "replaced", "proposed": in_agent_order(draft.reply.directives, request.agents)}
        if draft.hints:
            review["hints"] = draft.hints
        return replace(result, review=review)

    def _present(self, draft: _Draft) -> None:
        if draft.reply.fault is not None:
            self._say(f"the coordinator failed: {draft.reply.fault}")
        told = draft.directives()
        self._say("Directives:" if told else "Directives: none")
        self._say(*(f"  {agent:>5} <- {text}" for agent, text in told.items()))

    def _take(self, draft: _Draft, line: str) -> bool:
        name, _, text = line.partition(":")
        if name.strip() != "hint":
            return super()._take(draft, line)
        if not self.reads_hints:
            raise SwarmError("this coordinator reads no hints; direct agents yourself, such as a0: TEXT")
        hints = [*draft.hints, checked_text(text)]
        draft.cost(hints)  # before it is said: it cannot be taken back
        draft.hints = hints
        return True

    def _taken(self, draft: _Draft, is_hint: bool) -> None:
        if is_hint:
            self._ask_again(draft)
        self._present(draft)

    def _ask_again(self, draft: _Draft) -> None:
        """Ask the coordinator with the hints, if it can be asked; its reply then has the cost of all before."""
        hints, request, reply = draft.hints, draft.request, draft.reply
        spent = draft.cost(hints)
        left = None if request.max_tokens is None else max(0, request.max_tokens - reply.tokens - spent)
        (again,) = self._pool.direct([replace(request, hints=(*request.hints, *hints), max_tokens=left)])
        if not again.calls and again.fault is None:
            self._say("the coordinator was not asked: nothing is open for it, or the tokens that are left are too few")
            return
        draft.told = dict(again.directives)
        draft.reply = replace(
            again,
            prompt_tokens=reply.prompt_tokens + again.prompt_tokens,
            generated_tokens=reply.generated_tokens + again.generated_tokens,
            calls=reply.calls + again.calls,
            fault=reply.fault or again.fault,
        )
