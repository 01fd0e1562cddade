"""A toy world and a writer of small run folders, for the tests of everything that reads a journal."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from swarm.record.journal import JournalWriter, state_hash
from swarm.seeds import derive_seed
from worlds.protocol import Info, StepResult, World, WorldOptions
from worlds.registry import register


class GuessOptions(WorldOptions):
    high: int = 12


@register
class GuessWorld(World):
    """Whoever guesses the secret number solves it for all."""

    id = "toy-guess-v0"
    Options = GuessOptions
    options: GuessOptions

    def reset(self, seed: int, options: Mapping[str, Any] | None = None) -> tuple[dict[str, str], dict[str, Info]]:
        known = {"episode": options["episode"]} if options else options
        self.secret = random.Random(f"{seed} {known}").randint(1, self.options.high)
        self.guesses: list[int] = []
        self.agents, self.solved = list(self.possible_agents), False
        infos = {agent: Info(report=f"{agent} is ready") for agent in self.agents[:1]}
        return dict.fromkeys(self.agents, f"guess 1..{self.options.high}"), infos

    def step(self, actions: Mapping[str, str]) -> StepResult:
        infos: dict[str, Info] = {}
        for agent in self.ordered(actions):
            text = actions[agent]
            if not text.isdigit():
                infos[agent] = Info(feedback=f"illegal: {text} is no number", valid=False)
                continue
            self.guesses.append(int(text))
            self.solved = self.solved or int(text) == self.secret
            word = "hit" if int(text) == self.secret else "too low" if int(text) < self.secret else "too high"
            infos[agent] = Info(feedback=word, valid=True, report=f"{text} is {word}")
        live = list(self.agents)
        if self.solved:
            self.agents = []
        return StepResult(
            dict.fromkeys(live, ""),
            dict.fromkeys(live, float(self.solved)),
            dict.fromkeys(live, self.solved),
            dict.fromkeys(live, False),
            infos,
        )

    def state(self) -> dict[str, Any]:
        return {"secret": self.secret, "guesses": self.guesses}

    def goal(self) -> str:
        return f"find the number below {self.options.high}"

    def tools(self) -> list[dict[str, Any]]:
        return []

    def render(self) -> str:
        return f"secret {self.secret}"

    def sample_action(self, agent: str, directive: str, rng: random.Random) -> str:
        return str(rng.randint(1, self.options.high))


def toy_config(*, agents: int = 4, episodes: int = 2, concurrency: int = 1, **sections: Any) -> dict[str, Any]:
    return {
        "name": "toy",
        "seed": 7,
        "episodes": episodes,
        "concurrency": concurrency,
        "world": {"id": GuessWorld.id, "options": {"high": 12}},
        "agents": {"count": agents, "engine": {"kind": "random"}},
        "topology": {"kind": "star", "path": None, "neighbours": 4, "rewire": 0.1},
        "coordinator": {"kind": "rules"},
        "budget": {"tokens": 600, "calls": 80, "actions": None, "ticks": 6, "wall_time_s": None},
        "faults": {"max_faults": 20},
        **sections,
    }


class _Game:
    """Plays one episode by itself and hands out its records one by one."""

    def __init__(self, config: dict[str, Any], index: int) -> None:
        self.config, self.index = config, index
        self.world = GuessWorld(config["agents"]["count"], GuessOptions(**config["world"]["options"]))
        self.spent = {"tokens": 0, "calls": 0, "actions": 0}
        self.tick = 0
        self.rng = random.Random(index)

    def begin(self) -> dict[str, Any]:
        seed = derive_seed(self.config["seed"], "world", self.index)
        observations, infos = self.world.reset(seed, options={"episode": self.index, "level": 0})
        return {
            "episode": self.index,
            "world": self.world.id,
            "seed": seed,
            "level": 0,
            "level_by": "default",
            "goal": self.world.goal(),
            "observations": observations,
            "reports": {agent: info["report"] for agent, info in infos.items()},
            "state": state_hash(self.world.state()),
        }

    def play(self) -> tuple[dict[str, Any], int, int]:
        """Return the body of one tick, its tokens and its faults."""
        entries: list[dict[str, Any]] = []
        for number, agent in enumerate(self.world.possible_agents):
            if (number + self.tick) % 5 == 4:  # it rests
                continue
            entry = {"agent": agent, "prompt_tokens": 10 + number, "generated_tokens": 3}
            if (number + self.tick) % 7 == 6:
                entry |= {"action": "", "feedback": "", "valid": False, "reward": 0.0}
                entry |= {"fault": "call timed out after 60 s"}
            else:
                entry |= {"action": "?!" if self.rng.random() < 0.2 else str(self.rng.randint(1, 12))}
            entries.append(entry)
        acted = [entry for entry in entries if "fault" not in entry]
        result = self.world.step({entry["agent"]: entry["action"] for entry in acted})
        for entry in acted:
            entry |= {**result.infos[entry["agent"]], "reward": result.rewards[entry["agent"]]}
        tokens = 17 + sum(entry["prompt_tokens"] + entry["generated_tokens"] for entry in entries)
        self.spent["tokens"] += tokens
        self.spent["calls"] += len(entries)
        self.spent["actions"] += len(acted)
        body = {
            "episode": self.index,
            "tick": self.tick,
            "coordinator": {"prompt_tokens": 15, "generated_tokens": 2, "calls": 0},
            "directives": dict.fromkeys(self.world.possible_agents[self.tick % 2 :: 2], f"try above {self.tick}"),
            "agents": entries,
            "spent": dict(self.spent),
            "state": state_hash(self.world.state()),
            "terminated": self.world.solved,
            "truncated": False,
        }
        self.tick += 1
        return body, tokens, sum("fault" in entry for entry in entries)

    @property
    def over(self) -> bool:
        return self.world.solved or self.tick >= self.config["budget"]["ticks"]

    def end(self) -> dict[str, Any]:
        reason = "solved" if self.world.solved else "budget: ticks"
        body = {"episode": self.index, "solved": self.world.solved, "reason": reason, "ticks": self.tick}
        if self.world.solved:
            body["solution"] = str(self.world.secret)
        return {**body, **self.spent}


def write_toy_run(run_dir: Path, *, finish: bool = True, **config_parts: Any) -> dict[str, Any]:
    """Write journal.jsonl and telemetry.jsonl of a run; return its config.

    Args:
        run_dir: the folder, made if needed.
        finish: with False the run stops in the middle of its last episode, without `end`.
        config_parts: see `toy_config`.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    config = toy_config(**config_parts)
    tokens = faults = solved = ended = 0
    at_s = 1_700_000_000.0
    facts: list[dict[str, Any]] = [{"kind": "start", "at_s": at_s}]
    with JournalWriter(run_dir / "journal.jsonl", "group", 1000) as journal:
        journal.append("header", {"format": 1, "config": config, "checkpoints": {}})
        waiting = [_Game(config, index) for index in range(config["episodes"])]
        playing: list[_Game] = []
        stopped = False
        while (waiting or playing) and not stopped:
            while waiting and len(playing) < config["concurrency"]:
                playing.append(waiting.pop(0))
                journal.append("episode", playing[-1].begin())
            for game in list(playing):
                body, used, failed = game.play()
                seq = journal.next_seq
                journal.append("tick", body)
                at_s += 0.25
                steps = len(body["agents"]) - failed
                facts.append({"kind": "commit", "at_s": at_s, "seq": seq, "agent_steps": steps, "seconds": 0.25})
                tokens, faults = tokens + used, faults + failed
                if not finish and ended == config["episodes"] - 1 and game.tick == 2:
                    stopped = True
                    break
                if game.over:
                    journal.append("episode_end", game.end())
                    playing.remove(game)
                    ended, solved = ended + 1, solved + game.world.solved
        if finish:
            totals = {"episodes": ended, "solved": solved, "tokens": tokens, "faults": faults}
            journal.append("end", {"reason": "finished", **totals})
            facts.append({"kind": "finish", "at_s": at_s})
    facts.insert(3, {"kind": "host_death", "at_s": at_s, "host": 1, "detail": "exit code -9"})
    facts.insert(4, {"kind": "host_ready", "at_s": at_s, "recovered_s": 0.8})
    (run_dir / "telemetry.jsonl").write_text("".join(json.dumps(fact) + "\n" for fact in facts))
    return config
