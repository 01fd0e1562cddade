"""The tick loop: coordinator, agents, world, journal, in this order, for every episode in flight.

Owns the order of events and nothing physical: which process runs a model call is the pool's business, and what is on
disk is the journal's. Results are committed in a fixed logical order (episode, tick, agent), never in the order of
arrival, so a run that was killed and resumed has the journal of an undisturbed one.
"""

import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from pydantic import JsonValue

from swarm.agents.memory import AgentMemory
from swarm.config.engine import RandomEngine
from swarm.config.experiment import ExperimentConfig
from swarm.errors import SwarmError
from swarm.messages import ActReply, ActRequest, DirectReply, Operator, Pool
from swarm.prompt import STOP
from swarm.record.journal import JournalWriter
from swarm.record.records import End, Record, Tick, faults_in
from swarm.record.tally import Tally
from swarm.record.telemetry import TelemetryWriter
from swarm.run.budget import Spent
from swarm.run.episode import Episode, follow
from swarm.run.skills import Skills
from swarm.run.steering import Mailbox, Orders, Steer
from swarm.seeds import derive_seed
from worlds.protocol import StepResult, World
from worlds.registry import world_class
from worlds.results import WorldFaultError, plain_value


class _Turn(NamedTuple):
    """One agent's part in the current tick of one episode."""

    agent: str
    directive: str
    prompt: str
    prompt_tokens: int


class Runtime:
    """Plays a run to its end.

    Args:
        config: the experiment.
        make_world: number of an episode -> a fresh world.
        heard_by: agent -> agents whose reports it reads.
        journal: where records go.
        telemetry: where wall-clock facts go.
        memories: what agents keep, empty: one for each kind.
        mailbox: where people leave what they have to say to the run.
        operator: the person who takes part in it, None without one.
        on_commit: called whenever all that was asked is on record.
        skills: what agents can do by now, and what is played therefore.
        only: the episodes to play, each with its level; None plays all.

    Attributes:
        tally: the calls so far.
        end: what the run has done so far, as its last record will say it; without a reason while it goes on.
        exam: episodes of the exam that ended, and how many of them were solved; `end` counts them, too.
    """

    def __init__(
        self,
        config: ExperimentConfig,
        make_world: Callable[[int], World],
        heard_by: dict[str, tuple[str, ...]],
        journal: JournalWriter,
        telemetry: TelemetryWriter,
        memories: Sequence[AgentMemory[Any]],
        mailbox: Mailbox,
        operator: Operator | None,
        on_commit: Callable[[], None],
        skills: Skills,
        only: Mapping[int, int] | None = None,
    ) -> None:
        self.config = config
        self._explores = world_class(config.world.id).explores
        self.mailbox = mailbox
        self.operator = operator
        self.on_commit = on_commit
        self.skills = skills
        self.only = only
        self.tally = Tally()
        self.memories = memories
        self.make_world = make_world
        self.heard_by = heard_by
        self.journal = journal
        self.telemetry = telemetry
        self.end: End = {"kind": "end", "reason": "", "episodes": 0, "solved": 0, "tokens": 0, "faults": 0}
        self.exam = (0, 0)
        self.live: dict[int, Episode] = {}
        self.next_episode = 0
        self.round = 0
        self._steered = 0
        self._resume_after = -1
        self._committed_at = time.monotonic()

    # Folding a journal back in.

    def fold(self, records: Iterable[Record]) -> None:
        """Bring the run to the state that its journal describes, without calling any model.

        Raises:
            SwarmError: the journal does not fit the worlds of this installation.
        """
        for record in records:
            follow(record, self.live, self._open)
            match record["kind"]:
                case "episode":
                    self._resume_after = -1
                case "tick" | "episode_end":
                    self._resume_after = record["episode"]
            self._take(record)
        if not self.end["reason"]:
            for memory in self.memories:
                memory.load()

    def _open(self, index: int, level: int = 0, level_by: str = "default") -> Episode:
        try:
            episode = Episode(index, self.config, self.make_world(index), level, level_by)
        except WorldFaultError as error:
            raise SwarmError(str(error)) from error
        episode.steered, episode.skills = self._steered, self.skills.before(index)
        self.live[index] = episode
        self.next_episode = index + 1
        while index >= self.config.round_end(self.round):
            self.round += 1
        return episode

    def _take(self, record: Record) -> None:
        """Take in what a record says of the run."""
        self.tally.take(record)
        self.skills.fold(record)
        match record["kind"]:
            case "tick":
                self._steered = max(self._steered, self.live[record["episode"]].steered)
                self.end["faults"] += len(faults_in(record))
            case "episode_end":
                self.end["episodes"] += 1
                self.end["solved"] += record["solved"]
                self.end["tokens"] += record["tokens"]
                self.end["faults"] += record["reason"].startswith("world fault")
                if record["episode"] >= self.config.episodes:
                    self.exam = (self.exam[0] + 1, self.exam[1] + record["solved"])
            case "change":
                self.end["tokens"] += record["cost"].get("tokens", 0)
            case "end":
                self.end = record
        for memory in self.memories:
            memory.fold(record)

    # Playing.

    def play(self, pool: Pool) -> None:
        """Play until the run is over.

        Raises:
            Outage: a model cannot be asked any more; the open tick is not on record.
            SwarmError: the pool gave up, or the journal cannot be written.
        """
        started = self._committed_at = time.monotonic()
        limit = self.config.budget.wall_time_s
        self._settle()
        for episode in list(self.live.values()):  # killed between a last tick and its episode_end
            self._end_if_over(episode)
        while not self.end["reason"]:
            if self._resume_after < 0:
                self._end_round()
                last = self.config.round_end(self.round)
                while self.next_episode < last and len(self.live) < self.config.at_once:
                    self._begin_next()
            todo = [episode for index, episode in sorted(self.live.items()) if index > self._resume_after]
            self._resume_after = -1
            if todo:
                self._tick(todo, pool)
            if self.end["faults"] > self.config.faults.max_faults:
                self._finish("faults")
            elif self._over_budget():
                self._finish("budget: run_tokens")
            elif not self.live and self.next_episode >= self.config.all_episodes and self._round_ended:
                self._finish("finished")
            elif limit is not None and time.monotonic() - started > limit:
                self._finish("wall_time")

    def _begin_next(self) -> None:
        """Begin the next episode, or pass one that is not to be played."""
        index = self.next_episode
        if self.only is None:
            self._write(self._open(index, *self.skills.level(index)).opening())
        elif index in self.only:
            self._write(self._open(index, self.only[index]).opening())
        else:
            self.next_episode += 1

    @property
    def _round_ended(self) -> bool:
        """Whether what follows the rounds that were played has happened, too."""
        return self.round >= self.config.num_rounds

    def _end_round(self) -> None:
        """At the barrier after a round, let what agents keep change."""
        if self._round_ended or self.live or self.next_episode < self.config.round_end(self.round):
            return
        if self.config.learning is not None:
            self.telemetry.emit("learning", round=self.round)
        for memory in self.memories:
            for change in memory.after_round(self.round):
                self._write(change.as_record())
        self.round += 1

    def _over_budget(self) -> bool:
        limit = self.config.budget.run_tokens
        return limit is not None and self.end["tokens"] + sum(e.spent.tokens for e in self.live.values()) >= limit

    def _finish(self, reason: str) -> None:
        unended = sum(episode.spent.tokens for episode in self.live.values())
        self._write({**self.end, "reason": reason, "tokens": self.end["tokens"] + unended})

    def _write(self, record: Record) -> None:
        """Put something on record and take it in."""
        record["seq"] = self.journal.next_seq
        self.journal.append(record)
        self._take(record)

    def _tick(self, episodes: list[Episode], pool: Pool) -> None:
        steered = self._listen(episodes, pool)
        directed = self._direct(episodes, steered, pool)
        orders = {e.index: Orders(directed.get(e.index), steered.get(e.index, ())) for e in episodes}
        replies = self._act({e.index: self._turns(e, orders[e.index], pool) for e in episodes}, pool)
        steps = sum(self._commit(e, orders[e.index], replies[e.index]) for e in episodes)
        self.on_commit()
        now = time.monotonic()
        self.telemetry.emit(
            "commit",
            seq=self.journal.next_seq - 1,
            agent_steps=steps,
            seconds=round(now - self._committed_at, 6),
        )
        self._committed_at = now

    def _listen(self, episodes: list[Episode], pool: Pool) -> dict[int, tuple[Steer, ...]]:
        """Return what people have left for each episode that it has not heard yet."""
        self.mailbox.look()
        return {
            episode.index: self.mailbox.due(
                episode.index, episode.steered, episode.world.possible_agents, pool.count_tokens
            )
            for episode in episodes
        }

    def _direct(
        self, episodes: list[Episode], steered: Mapping[int, tuple[Steer, ...]], pool: Pool
    ) -> dict[int, DirectReply]:
        """Ask the coordinator of every episode whose turn it is."""
        agents, coordinator = self.config.agents, self.config.coordinator
        cut_off = self.config.topology.kind == "none"
        if not coordinator.traits.directs or (cut_off and coordinator.traits.needs_reports):
            return {}
        cycle = coordinator.every_ticks * (agents.count if agents.turns == "one_at_a_time" else 1)
        requests = [
            episode.request([steer.text for steer in steered.get(episode.index, ()) if not steer.agents], self.memories)
            for episode in episodes
            if episode.ticks % cycle == 0
        ]
        if not requests:
            return {}
        replies = pool.direct(requests) if self.operator is None else self.operator.direct(requests, pool)
        return {reply.key[0]: reply for reply in replies}

    def _turns(self, episode: Episode, orders: Orders, pool: Pool) -> list[_Turn]:
        """Return the turns that the budget admits in this tick, in agent order."""
        agents = self.config.agents
        acting = [agent for agent in episode.world.agents if not episode.rests(agent)]
        if agents.turns == "one_at_a_time":
            due = episode.world.possible_agents[episode.ticks % agents.count]
            acting = [due] if due in acting else []
        directives = orders.directives(episode.directives)
        acting = self._active(episode, acting, directives)
        prompts = [episode.prompt(agent, directives, self.heard_by[agent], self.memories) for agent in acting]
        turns = [
            _Turn(agent, directives.get(agent, ""), prompt, tokens)
            for agent, prompt, tokens in zip(acting, prompts, pool.count_prompts(prompts), strict=True)
        ]
        # Already in flight: the coordinator's share counts before the agents'.
        spent = episode.spent + Spent(orders.tokens, orders.calls)
        admitted = spent.admit(episode.config.budget, [turn.prompt_tokens + agents.max_new_tokens for turn in turns])
        return turns[:admitted]

    def _active(self, episode: Episode, acting: list[str], directives: Mapping[str, str]) -> list[str]:
        """Leave out agents that rest: those without a directive, except as many, in turn, as `min_active` takes."""
        least = self.config.agents.min_active
        if least is None or episode.ticks == 0 or len(acting) <= least:
            return acting
        active = {agent for agent in acting if agent in directives}
        first = episode.ticks * least % len(acting)
        others = [agent for agent in acting[first:] + acting[:first] if agent not in active]
        active.update(others[: max(0, least - len(active))])
        return [agent for agent in acting if agent in active]

    def _act(self, turns: Mapping[int, Sequence[_Turn]], pool: Pool) -> dict[int, list[ActReply]]:
        """Return the replies of all turns, asked for with one call to the pool; turns and replies are by episode."""
        found: dict[int, list[ActReply]] = {index: [] for index in turns}
        requests: list[ActRequest] = []
        for index, admitted in turns.items():
            episode = self.live[index]
            try:
                if isinstance(self.config.agents.engine, RandomEngine):
                    found[index] = [self._act_randomly(episode, turn, pool) for turn in admitted]
                else:
                    requests += [self._request(episode, turn) for turn in admitted]
            except WorldFaultError as error:
                episode.fault = error
        for reply in pool.act(requests) if requests else []:
            found[reply.key[0]].append(reply)
        return found

    def _request(self, episode: Episode, turn: _Turn) -> ActRequest:
        agents = self.config.agents
        for memory in self.memories:
            memory.asked(episode.index, turn.agent, turn.prompt)
        handles = (memory.handle(episode.index, turn.agent) for memory in self.memories)
        return ActRequest(
            (episode.index, episode.ticks, turn.agent),
            turn.prompt,
            agents.max_new_tokens,
            episode.world.action_pattern(turn.agent) if agents.constrained else None,
            tuple(handle for handle in handles if handle is not None),
            "\n".join(filter(None, (episode.observations[turn.agent], turn.directive))) if agents.inline else None,
            not self._explores(episode.observations[turn.agent]),
        )

    def _act_randomly(self, episode: Episode, turn: _Turn, pool: Pool) -> ActReply:
        """The null control acts like a model that knows the rules of the world and nothing else."""
        seed = derive_seed(self.config.seed, "random-policy", episode.index, episode.ticks, turn.agent)
        text = episode.world.sample_action(turn.agent, turn.directive, random.Random(seed))  # noqa: S311
        (tokens,) = pool.count_tokens([text + STOP])
        return ActReply((episode.index, episode.ticks, turn.agent), text, turn.prompt_tokens, tokens)

    def _commit(self, episode: Episode, orders: Orders, replies: Sequence[ActReply]) -> int:
        """Step the world, take the tick in, then write its record; return the number of agent steps."""
        actions = {reply.key[2]: reply.text for reply in replies if reply.fault is None}
        try:
            result, state = episode.step(actions)
        except WorldFaultError as error:
            # The step has no tick record, but its model calls were made: they are charged all the same.
            made = sum(reply.tokens for reply in replies)
            unrecorded = Spent(made + orders.tokens, len(replies) + orders.calls)
            episode.spent += unrecorded
            self._close(episode, f"world fault: {error}"[:300], unrecorded)
            return 0
        record = episode.ticking(orders, replies, result, state)
        record["memory"] = self._remembered(record, result, replies)
        episode.commit(record, result)
        for memory in self.memories:
            memory.save(record["episode"], record["tick"])
        self._write(record)
        self._settle()
        self._end_if_over(episode)
        return len(actions)

    def _settle(self) -> None:
        """Let what agents keep change because of the last tick."""
        for memory in self.memories:
            for change in memory.pending():
                self._write(change.as_record())

    def _remembered(self, record: Tick, result: StepResult, replies: Sequence[ActReply]) -> dict[str, Any]:
        """Let the memories take in a tick; return what of it goes on record, by kind."""
        found = {}
        for memory in self.memories:
            updates = {r.key[2]: data for r in replies for kind, data in r.updates if kind == memory.kind}
            body = memory.after_tick(record, result, updates)
            if body := plain_value(f"memory {memory.kind}", "after_tick()", dict[str, JsonValue], body):
                found[memory.kind] = body
        return found

    def _end_if_over(self, episode: Episode) -> None:
        if reason := episode.end_reason():
            self._close(episode, reason)

    def _close(self, episode: Episode, reason: str, unrecorded: Spent | None = None) -> None:
        record = episode.closing(reason, unrecorded)
        for memory in self.memories:
            for change in memory.after_episode(record, self.live):
                self._write(change.as_record())
        self._write(record)
        del self.live[episode.index]
        if self.operator is not None:
            self.operator.on_episode_end(episode.index, reason, episode.ticks, episode.spent.tokens)
