"""What an experiment would do: world, models, budget, the time and memory that it takes, what compare would run."""

import importlib.util
import os
import re
import shutil
import socket
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

from swarm.agents.model_sizes import check_sizes, memory_needs
from swarm.agents.models import LoadedModels, names_checkpoint, resolve_model
from swarm.backends.vllm import require_vllm
from swarm.check.learning import tell_learning
from swarm.check.measure import Pace, earlier, played
from swarm.check.models import look_for
from swarm.check.plan import Plan, about, size
from swarm.compare.arms import arms_of, chosen_arms, equal_terms, not_applicable, with_settings
from swarm.config.engine import OpenAIEngine, TransformersEngine, VllmEngine
from swarm.config.experiment import CompareConfig, ExperimentConfig
from swarm.config.load import load_experiment
from swarm.config.training import resolve_device
from swarm.coordinator.kinds import book_for
from swarm.doctor import recipe_for
from swarm.errors import SwarmError
from swarm.process.machine import cores, memory_bytes
from swarm.run.episode import world_of
from swarm.run.topology import neighbours

PROCESS_BYTES = 0.25e9
"""Memory of the command or of a host, without weights (its proportional set: 0.21 to 0.28 GB, 2026-11-29)."""
RAY_BYTES = 0.4e9
"""Memory of Ray's own processes on one machine (likewise: 0.36 GB)."""

_ANSWER_S = 3.0
_ROLES = ("agents", "coordinator")


def check_experiment(plan: Plan, file: Path, overrides: Sequence[str]) -> None:
    """Tell what `swarm run` and `swarm compare` would do with a file."""
    config, base_dir = load_experiment(file, overrides), file.resolve().parent
    plan.tell(
        "experiment",
        f"{config.name}: {config.episodes:,} episode(s), {config.at_once} at once, seed {config.seed}",
    )
    _world(plan, config, base_dir)
    folders, unready = _models(plan, config, base_dir)
    found = LoadedModels()
    for role in (role for role in _ROLES if role not in unready):
        with plan.noting():
            setattr(found, role, resolve_model(found, role, config, base_dir))
    _runtime(plan, config, base_dir, folders)
    _budget(plan, config)
    tell_learning(plan, config, base_dir)
    pace = earlier(config, Path("runs"))
    if pace is None and not plan.missing and unready:
        pace = Pace("a model has to be fetched or unpacked first")
    elif pace is None and not plan.missing:
        with plan.noting():
            pace = played(config, base_dir, found, sum(need.size for need in memory_needs(config, folders)))
    _estimates(plan, config, pace or Pace("nothing was measured, for something is missing"))
    _compare(plan, config, file, pace)


def _world(plan: Plan, config: ExperimentConfig, base_dir: Path) -> None:
    with plan.noting():
        world = world_of(config, base_dir)
        options = ", ".join(f"{name} {value}" for name, value in config.world.options.items())
        plan.tell("world", config.world.id, f"options valid{f' ({options})' if options else ''}")
        with plan.noting("topology: "):
            neighbours(config.topology, world.possible_agents, config.seed, base_dir)
    kinds = ", ".join(memory.kind for memory in config.agents.memory)
    plan.tell("remember", kinds, f"history of {config.agents.history}" if config.agents.history else "")


def _models(plan: Plan, config: ExperimentConfig, base_dir: Path) -> tuple[dict[str, Path], list[str]]:
    """Tell what agents and coordinator run on, and what each engine lacks.

    Returns:
        The folders of models by name, and the roles whose model cannot be loaded as it is.
    """
    folders: dict[str, Path] = {}
    unready = [role for role in _ROLES if not _model(plan, role, config, base_dir, folders)]
    with plan.noting():
        book_for(config.coordinator, config.world.id)
    return folders, unready


def _model(plan: Plan, role: str, config: ExperimentConfig, base_dir: Path, folders: dict[str, Path]) -> bool:
    """Tell what one of them runs on; return whether nothing is missing, and nothing has to be fetched or unpacked."""
    lacking, section = len(plan.missing), getattr(config, role)
    engine = section.engine
    who = f"{section.count:,} agents" if role == "agents" else f"coordinator {section.kind}"
    if engine is None:
        plan.tell(role, f"{who}, no model")
        return True
    plan.tell(role, f"{who}, engine {engine.kind}", getattr(engine, "url", ""))
    elsewhere = isinstance(engine, OpenAIEngine)  # of its model there is only a tokenizer here
    if isinstance(engine, OpenAIEngine) and engine.key_env and not os.environ.get(engine.key_env):
        plan.lack(f"{role}: the variable {engine.key_env} with the key is not set: export {engine.key_env}=...")
    if isinstance(engine, VllmEngine):
        _vllm(plan, role, engine, config)
    if adapter := getattr(engine, "adapter", None):
        place = base_dir / adapter
        if not (place / "adapter_config.json").is_file():
            plan.lack(f"{role}: no PEFT adapter at {place}: {recipe_for(base_dir, place)}")
        if isinstance(engine, TransformersEngine) and importlib.util.find_spec("peft") is None:
            plan.lack(f"{role}: engine.adapter needs the package peft: pip install 'ulm-swarm[hf]'")
    name = getattr(engine, "tokenizer", None) or (None if elsewhere else getattr(engine, "model", None))
    if name is not None:
        pretrained = elsewhere or isinstance(engine, TransformersEngine | VllmEngine)
        folder = look_for(plan, role, name, base_dir, ours=not pretrained and names_checkpoint(base_dir, name))
        if folder is None:
            return False
        if not elsewhere:
            folders[name] = folder
    return len(plan.missing) == lacking


def _vllm(plan: Plan, role: str, engine: VllmEngine, config: ExperimentConfig) -> None:
    import torch

    with plan.noting(f"{role}: "):
        require_vllm(engine.num_gpus)
    if config.runtime.pool == "local":
        plan.lack(f"{role}: engine vllm runs in a Ray actor; set runtime.pool: ray")
    if config.runtime.address is None and engine.num_gpus > (there := torch.cuda.device_count()):
        plan.lack(f"{role}: engine.num_gpus is {engine.num_gpus:g}, and this machine has {there}; lower it")


def _runtime(plan: Plan, config: ExperimentConfig, base_dir: Path, folders: dict[str, Path]) -> None:
    """Tell where it is computed and what memory that takes, of how much."""
    runtime, there = config.runtime, memory_bytes()
    with plan.noting("runtime.device: "):
        device = resolve_device(runtime.device)
        hosts = f"{config.num_hosts} host processes and {runtime.standby} on standby, Ray"
        where = hosts if runtime.pool == "ray" else "in this process"
        at = f" at {runtime.address}" if runtime.address else ""
        plan.tell("computes", f"{where}{at}", f"{device}, {cores()} cores here")
    if (place := re.search(r"([^/@]+):(\d+)$", runtime.address or "")) and runtime.pool == "ray":
        with plan.noting(f"runtime.address: nobody answers at {runtime.address}: "):
            socket.create_connection((place[1], int(place[2])), _ANSWER_S).close()
    if runtime.address is None:
        with plan.noting():
            check_sizes(config, {n: f for n, f in folders.items() if not names_checkpoint(base_dir, n)})
        needs = memory_needs(config, folders)
        processes = 1 + (config.num_hosts + runtime.standby if runtime.pool == "ray" else 0)
        whole = processes * PROCESS_BYTES + (RAY_BYTES if runtime.pool == "ray" else 0)
        weights = sum(need.size for need in needs if need.place == "this machine")
        plan.tell(
            "memory use",
            f"about {size(weights + whole)}, {size(weights)} of it for weights",
            f"this machine has {size(there)}",
            "that is too little" if weights + whole > there else "",
            *(f"{size(n.size)} on the GPU for {n.engine.model}" for n in needs if n.place != "this machine"),
        )


def _budget(plan: Plan, config: ExperimentConfig) -> None:
    """Tell the most that an episode, and the run, may use."""
    budget, agents = config.budget, config.agents
    acting = 1 if agents.turns == "one_at_a_time" else agents.count
    asking = 2 if config.coordinator.engine is not None else 0  # a briefing for each part of the swarm
    ticks = budget.ticks
    limits = {
        "tokens": budget.tokens,
        "calls": _least(budget.calls, ticks and ticks * (acting + asking)),
        "actions": _least(budget.actions, budget.calls, ticks and ticks * acting),
        "ticks": ticks,
    }
    for what, times in {"an episode": 1, "the run": config.all_episodes}.items():
        told = ", ".join(f"{times * most:,} {name}" for name, most in limits.items() if most is not None)
        plan.tell("at most", f"{what}: {told}")
    if budget.run_tokens is not None:
        plan.tell("at most", f"the run: {budget.run_tokens:,} tokens, learning included")
    if budget.wall_time_s is not None:
        plan.tell("at most", f"the run: {budget.wall_time_s:g} s")


def _least(*limits: int | None) -> int | None:
    return min((limit for limit in limits if limit is not None), default=None)


def _estimates(plan: Plan, config: ExperimentConfig, pace: Pace) -> None:
    """Tell time, tokens and disk."""
    runs = Path("runs") if Path("runs").is_dir() else Path()
    free = shutil.disk_usage(runs).free
    seconds = None if pace.seconds is None else pace.seconds * config.all_episodes
    plan.tell("time", about(seconds, pace.rests_on))
    if not os.access(runs, os.W_OK):
        plan.lack(f"cannot write in {runs.absolute()}; change its permissions, or use --out")
    if pace.seconds is None:
        plan.tell("disk", "unknown", f"{size(free)} are free")
        return
    plan.tell("tokens", f"about {pace.tokens:,.0f} an episode, {pace.tokens * config.all_episodes:,.0f} in all")
    disk = pace.disk_bytes * config.all_episodes
    plan.tell("disk", f"about {size(disk)} for the run folder", f"{size(free)} are free")
    if disk > free:
        plan.lack(f"the run folder takes about {size(disk)}, and {size(free)} are free; free some space, or use --out")


def _compare(plan: Plan, config: ExperimentConfig, file: Path, pace: Pace | None) -> None:
    """Tell what `swarm compare` would run; what keeps it from that is missing only where the file asks for it."""
    problems = Plan("compare")
    with problems.noting("compare: "):
        _compared(plan, problems, config, file, pace)
    for text in problems.missing:
        if config.compare is not None:
            plan.lack(text)
        else:
            plan.tell("compare", f"not possible: {text.removeprefix('compare: ')}")


def _compared(plan: Plan, problems: Plan, config: ExperimentConfig, file: Path, pace: Pace | None) -> None:
    arms, compare = arms_of(config), config.compare or CompareConfig()
    each: dict[str, int] = {}
    names = [arm for arm in chosen_arms(compare.arms, arms) if not_applicable(arm, config) is None]
    if not names:
        raise SwarmError("no arm applies to this experiment")
    for arm in names:
        with problems.noting("compare: "):
            of_arm = equal_terms(config, arm, compare.seeds[0], compare.episodes)
            each[arm] = of_arm.all_episodes
            if config.compare is not None and arm in config.compare.rivals:
                _models(replace(problems, lines=[]), of_arm, file.resolve().parent)
    values = 1
    for key, tried in compare.sweep.items():
        values = len(tried)
        for value in tried:
            with problems.noting("compare: "):
                with_settings(config, {key: value}, "compare.sweep")
    if problems.missing:
        return
    episodes = values * len(compare.seeds) * sum(each.values())
    swept = f"{values} values of {next(iter(compare.sweep))} x " if compare.sweep else ""
    limit = None if config.learning is not None else config.budget.tokens
    tokens = "" if limit is None else f"at most {episodes * limit:,} tokens"
    plan.tell(
        "compare",
        f"{swept}{len(names)} arms x {len(compare.seeds)} seeds x {_range(each.values())} episodes = {episodes:,}",
        tokens,
    )
    plan.tell("", ", ".join(names))
    if pace is not None and pace.seconds is not None:
        plan.tell("", f"{about(pace.seconds * episodes, 'if all went at the pace above')}; they share batches, so less")


def _range(numbers: Collection[int]) -> str:
    """Return the least and the most of some numbers, in words."""
    low, high = min(numbers), max(numbers)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"
