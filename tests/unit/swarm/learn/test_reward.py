"""`kind: reward`: a µLM learns from a world's reward alone, and the same command goes on bit-equal."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from fakes.solverless import without_solver
from fakes.training import alone, interrupt_after, saved_tensors, tiny_recipe, without_ray

from swarm.errors import SwarmError
from swarm.learn.reward import RewardObjective
from swarm.learn.rollouts import Place, Rollouts
from swarm.train.progress import read_metrics
from swarm.train.recipe import RewardRecipe, load_recipe
from swarm.train.training import open_training, train_policy
from ulm.checkpoint import load_checkpoint
from ulm.tokenizer import Tokenizer
from worlds.numbers.puzzles import is_held_out

RECIPE = tiny_recipe(
    kind="reward",
    world="numbers-v0",
    options={"count": 2, "high": 6, "target_low": 0, "target_high": 36},
    every=4,
    puzzles=12,
    explore=2,
    attempts=2,
    max_new_tokens=6,
    optimizer={"steps": 10, "batch_size": 8, "micro_batches": 2, "warmup": 2},
    score_examples=6,
)
del RECIPE["task"]


@pytest.fixture(autouse=True)
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The training file in an empty working folder; nobody may ask the solver."""
    torch.set_num_threads(1)
    without_ray(monkeypatch)
    without_solver(monkeypatch)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("swarm.learn.rollouts.CORPUS", 5)
    Path("train.yaml").write_text(json.dumps(RECIPE))
    return Path("train.yaml")


def recipe(*overrides: str) -> RewardRecipe:
    found = load_recipe(Path("train.yaml"), overrides)
    assert isinstance(found, RewardRecipe)
    return found


def objective(*overrides: str) -> RewardObjective:
    training = open_training(recipe(*overrides), Path())
    training.prepare(Path())
    found = training.objective(Path(), alone())
    assert isinstance(found, RewardObjective)
    return found


def train(*overrides: str, out: str = "policy") -> list[str]:
    lines: list[str] = []
    train_policy(Path("train.yaml"), overrides, out=Path(out), echo=lines.append)
    return lines


def state(name: str) -> dict[str, torch.Tensor]:
    return saved_tensors(Path("runs", f"train-{name}", "states"))


@pytest.mark.thorough
def test_it_ends_bit_equal_after_a_kill_in_the_middle_of_a_round(monkeypatch: pytest.MonkeyPatch) -> None:
    train("name=whole", out="whole")
    for steps in (3, 4):  # the second kill is after the next round has begun
        interrupt_after(steps, monkeypatch)
        with pytest.raises(KeyboardInterrupt):
            train()
    train()
    assert state("tiny").keys() == state("whole").keys()
    assert all(torch.equal(value, state("tiny")[name]) for name, value in state("whole").items())
    lines = [read_metrics(Path("runs", f"train-{name}", "metrics.jsonl")) for name in ("tiny", "whole")]
    counts = [[(line["step"], line["loss"], line["rounds"], line["explored"]) for line in some] for some in lines]
    assert counts[0] == counts[1]


@pytest.mark.thorough
def test_a_training_whose_gathered_attempts_are_lost_says_so_and_does_not_go_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    interrupt_after(3, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        train("save_every=3")
    states = Path("runs/train-tiny/states")
    (manifest,) = states.glob("step-*.json")
    entries = json.loads(manifest.read_text())["state"]["tensors"]
    for name in {name for key, entry in entries.items() if "extra." in key for name in entry["objects"]}:
        (states / "objects" / name).unlink()
    with pytest.raises(SwarmError, match=r"what the training gathered is lost, .*; remove its states to start over"):
        train("save_every=3")


@pytest.mark.thorough
def test_the_checkpoint_says_what_was_tried_and_how_well_it_does_on_held_out_puzzles() -> None:
    train()
    meta = load_checkpoint(Path("policy")).meta
    assert set(meta["scores"]["puzzle"]) == {"n", "greedy", "sampled_16"}
    assert meta["rounds"] == 3
    assert meta["attempts"]["explored"] == 3 * 12 * 2
    assert meta["attempts"]["own"] > 0


@pytest.mark.thorough
def test_from_random_weights_it_solves_puzzles_that_nobody_showed_it() -> None:
    """Two tiles, 200 steps: 50 of 60 held-out puzzles at the first attempt (2026-11-29); before, none."""
    changes: dict[str, Any] = {"optimizer": {"kind": "muon", "steps": 200, "batch_size": 64, "lr": 3e-3, "warmup": 10}}
    changes |= {"model": {"preset": "tiny", "vocab_size": 300, "spell_numbers": True}, "every": 40, "puzzles": 100}
    options = {"count": 2, "high": 9, "target_low": 0, "target_high": 81}
    Path("train.yaml").write_text(
        json.dumps({**RECIPE, **changes, "explore": 10, "score_examples": 60, "options": options})
    )
    before, tokenizer = objective(), Tokenizer.load("tokenizer.json")
    untaught = open_training(recipe(), Path()).score(before.model, tokenizer)["puzzle"]
    train(out="learned")
    learned = load_checkpoint(Path("learned")).meta["scores"]["puzzle"]
    assert untaught["greedy"] == 0
    assert learned["greedy"] >= 0.6
    assert learned["sampled_16"] >= 0.85
    more = ["init=learned", "explore=0", "attempts=4", "every=4", "optimizer.steps=5", "save_every=5"]
    train("name=child", *more, out="child")  # goes on by its own attempts alone
    meta = load_checkpoint(Path("child")).meta
    assert (meta["recipe"]["init"], "explored" in meta["attempts"]) == ("learned", False)
    assert meta["attempts"]["own_right"] > 0


def test_no_text_holds_a_puzzle_that_is_held_out_or_scored_and_those_that_came_up_are_counted() -> None:
    made = objective("puzzles=60", "explore=6")
    made.batch(0)
    assert made.counts["barred"] > 0
    prompts = [*made.imitated.right, *made.imitated.relabelled]
    assert prompts
    texts = [text.split("\n")[0] for text in [*prompts, *made.rollouts.texts()]]
    for text in texts:
        tiles, _, target = text.removeprefix("tiles ").partition(" target ")
        assert not is_held_out(list(map(int, tiles.split())), int(target)), text
    assert set(made.rollouts.scoring).isdisjoint(texts)


def test_a_world_that_holds_nothing_out_is_learned_without_the_puzzles_of_its_score() -> None:
    given = recipe("options.target=7", "options.split=any")
    rollouts = Rollouts(given, Path())
    assert all(rollouts.is_barred(observation) for observation in rollouts.scoring)


def test_random_weights_try_by_themselves_from_the_second_round_on_where_nobody_was_right() -> None:
    made = objective("explore=1", "hindsight=0")
    made.imitated.add_right("p\n", "1")
    made.batch(0)
    assert made.counts["own"] == 0
    known = set(made.imitated.right)
    tried: list[str] = []
    real = made.rollouts.tried

    def spy(engine: Any, places: list[Place], *more: Any) -> Any:
        tried.extend(made.rollouts.observed(place) for place in places)
        return real(engine, places, *more)

    made.rollouts.tried = spy  # type: ignore[method-assign]
    made.batch(4)
    assert made.counts["own"] == 2 * len(tried) > 0
    assert known.isdisjoint(f"{observation}\n" for observation in tried)


def test_attempts_and_examples_do_not_depend_on_how_many_workers_share_them() -> None:
    whole = objective()
    places = [Place("puzzle", number) for number in range(12)]
    found = [one for place in places for one in whole.rollouts.explored(place, 6)]
    parts = []
    for rank in range(3):
        share = objective()
        share.worker = type(share.worker)(rank, 3, share.worker.device, print)
        parts += [one for place in share._mine(places) for one in whole.rollouts.explored(place, 6)]
    assert parts == found


def test_an_own_attempt_is_judged_by_the_world() -> None:
    made = objective()
    rollouts = made.rollouts
    place = next(
        place
        for place in (Place("puzzle", number) for number in range(50))
        if any(one.right for one in rollouts.explored(place, 60))
    )
    answer = next(one.answer for one in rollouts.explored(place, 60) if one.right)
    assert rollouts._act(place, answer).right
    assert not rollouts._act(place, "1/").right


def test_the_solver_of_lessons_is_not_there() -> None:
    """The null of all tests here: whoever asked for lessons would have failed."""
    from worlds.numbers import lessons, solver

    with pytest.raises(AssertionError, match="the solver was asked"):
        solver.expressions((1, 2))
    with pytest.raises(AssertionError, match="the solver was asked"):
        lessons.four_tiles(None, False)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["explore=0"], "random weights need random attempts; set `explore`, or `init`"),
        (["model.preset=ltm-1m"], "has a long-term memory, which `reward` does not train"),
        (["world=nowhere-v0"], "world 'nowhere-v0' not found"),
        (["options.colour=red"], "unknown option 'colour'"),
        (["task=numbers-agent"], "unknown key 'task'"),
    ],
)
def test_what_cannot_be_is_one_clear_line(overrides: list[str], message: str) -> None:
    with pytest.raises(SwarmError, match=message) as caught:
        train(*overrides)
    assert str(caught.value).count("\n") <= (0 if "task" not in message else 4)  # a wrong key is shown in its line


def test_a_round_without_a_single_win_says_so() -> None:
    with pytest.raises(SwarmError, match="round 0 has nothing to learn from: none of 1 attempts was right; raise"):
        objective("puzzles=1", "explore=1", "hindsight=0", "options.count=4", "options.high=13").batch(0)
