"""A toy world, and runs in it in which agents guess, talk nonsense, rest and fail."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fakes.scripted_run import KilledError, ScriptedPool, play

from swarm.config.experiment import ExperimentConfig
from swarm.messages import ActReply, ActRequest, DirectReply, DirectRequest
from worlds.protocol import Info, StepResult, World, WorldOptions, tool
from worlds.registry import register


class GuessOptions(WorldOptions):
    high: int = 30


@register
class GuessWorld(World):
    """Whoever guesses the secret number solves it for all."""

    id = "toy-guess-v0"
    states_facts = True
    Options = GuessOptions
    options: GuessOptions

    def reset(self, seed: int, options: Mapping[str, Any] | None = None) -> tuple[dict[str, str], dict[str, Info]]:
        known = {"episode": options["episode"]} if options else options
        self.secret = random.Random(f"{seed} {known}").randint(1, self.options.high)
        self.guesses: list[int] = []
        self.agents, self.solved = list(self.possible_agents), False
        infos = {agent: Info() for agent in self.agents}
        infos[self.agents[0]] = Info(report=f"{self.agents[0]} is ready")
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
            facts = [(f"is it {text}", word)]
            infos[agent] = Info(feedback=word, valid=True, report=f"{text} is {word}", facts=facts)
        live = list(self.agents)
        if self.solved:
            self.agents = []
        return StepResult(
            dict.fromkeys(live, ""),
            {agent: float(info["feedback"] == "hit") for agent, info in infos.items()},
            dict.fromkeys(live, self.solved),
            dict.fromkeys(live, False),
            infos,
        )

    def state(self) -> dict[str, Any]:
        return {"secret": self.secret, "guesses": self.guesses}

    def goal(self) -> str:
        return f"find the number below {self.options.high}"

    def tools(self) -> list[dict[str, Any]]:
        return [tool("guess", "Guess a number.", "7", number={"type": "integer"})]

    def render(self) -> str:
        return f"secret {self.secret}"

    def sample_action(self, agent: str, directive: str, rng: random.Random) -> str:
        return str(rng.randint(1, self.options.high))


def toy_config(*, agents: int = 4, episodes: int = 2, concurrency: int = 1, **sections: Any) -> ExperimentConfig:
    data: dict[str, Any] = {
        "name": "toy",
        "seed": 7,
        "episodes": episodes,
        "concurrency": concurrency,
        "world": {"id": GuessWorld.id},
        "agents": {"count": agents, "engine": {"kind": "echo"}},
        "coordinator": {"kind": "rules"},
        "budget": {"tokens": 600, "calls": 80, "ticks": 6},
        "faults": {"max_faults": 1000},
        "runtime": {"durability": "group"},
        **sections,
    }
    return ExperimentConfig.model_validate(data)


class GuessingPool(ScriptedPool):
    """Agents guess by their keys alone. In the third call of all a host dies; `stop` names the tick of a kill."""

    def __init__(self, stop: tuple[int, int] | None = None) -> None:
        super().__init__()
        self.stop, self.calls = stop, 0

    def act(self, requests: Sequence[ActRequest]) -> list[ActReply]:
        if requests[0].key[:2] == self.stop:
            raise KilledError
        self.calls += 1
        if self.calls == 3:
            self.emit("host_death", host=1, detail="exit code -9")
            self.emit("host_ready", recovered_s=0.8)
        return super().act(requests)

    def answer(self, request: ActRequest) -> ActReply:
        luck = random.Random(str(request.key))
        number = int(request.key[2][1:])
        if (number + request.key[1]) % 7 == 6:
            return ActReply(request.key, "", 10 + number, 3, "call timed out after 60 s")
        return ActReply(request.key, "?!" if luck.random() < 0.2 else str(luck.randint(1, 30)), 10 + number, 3)

    def direct(self, requests: Sequence[DirectRequest]) -> list[DirectReply]:
        return [
            DirectReply(r.key, dict.fromkeys(r.agents[r.key[1] % 2 :: 2], f"try above {r.key[1]}"), 15, 2)
            for r in requests
        ]


def write_toy_run(run_dir: Path, *, finish: bool = True, ticks: int = 1, **config_parts: Any) -> None:
    """Play a run.

    Args:
        run_dir: its folder.
        finish: with False the run is killed after so many `ticks` of its last episode.
        config_parts: see `toy_config`.
    """
    config = toy_config(**config_parts)
    play(run_dir, config, GuessingPool(None if finish else (config.episodes - 1, ticks)))
