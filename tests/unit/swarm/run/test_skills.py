"""What agents can do follows from the rounds before, and so does the level of the next puzzle."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from fakes.cuts import resume_from_cuts
from fakes.learning import learned_run, learning_config, write_base

from swarm.coordinator.digest import digest_lines
from swarm.errors import SwarmError
from swarm.learn.trial import Trial
from swarm.record.journal import read_records
from swarm.run.experience import Retelling
from swarm.run.runner import check_files
from swarm.run.skills import OTHERS, Skills

LEVELS = {
    "id": "numbers-v0",
    "options": {"levels": [{"count": 1}, {"count": 2}, {"count": 3}], "high": 4, "split": "any"},
}
EASY = LEVELS["options"] | {"target_low": 0, "target_high": 30}  # type: ignore[operator]


def skills(*, episodes: int = 64, every: int = 32, number: int = 3, count: int = 2, **learning: Any) -> Skills:
    """Return what is known before the first record, in a world of so many levels."""
    settings = {"every": every, "levels": "fitting", **learning}
    config = learning_config(Path("base"), count=count, episodes=episodes, learning=settings)
    world = SimpleNamespace(possible_agents=[f"a{index}" for index in range(count)], num_levels=number)
    return Skills(config, cast("Any", world))


def play(found: Skills, index: int, level: int, *earned: str, solved: bool = False) -> None:
    """Put an episode on record in which these agents earned something, with one tick."""
    entries = [{"agent": agent, "reward": float(agent in earned)} for agent in found.world.possible_agents]
    found.fold(cast("Any", {"kind": "episode", "episode": index, "level": level}))
    found.fold(cast("Any", {"kind": "tick", "episode": index, "agents": entries}))
    found.fold(cast("Any", {"kind": "episode_end", "episode": index, "solved": solved}))


def after(*rates: float, every: int = 32) -> Skills:
    """Return skills after a round in which the levels were solved so often."""
    found = skills(every=every * len(rates), episodes=every * len(rates) * 8, number=len(rates))
    for index in range(every * len(rates)):
        level, number = index % len(rates), index // len(rates)
        play(found, index, level, solved=number < rates[level] * every)
    return found


def levels_of(found: Skills) -> list[tuple[int, str]]:
    learning = found.config.learning
    assert learning is not None
    return [found.level(index) for index in range(learning.every, 2 * learning.every)]


@pytest.mark.parametrize(
    ("rates", "chosen"),
    [
        ((0.8, 0.5, 0.2), 2),  # the hardest that teaches
        ((0.9, 0.5, 0.05), 1),
        ((1.0, 1.0, 0.0), 2),  # as far from the band as the easier ones, from below: the easiest of those that fail
        ((1.0, 1.0, 1.0), 2),
        ((0.0, 0.0, 0.0), 0),
        ((0.95, 0.0, 0.0), 0),
    ],
)
def test_the_hardest_level_that_teaches_is_chosen_else_the_nearest(rates: tuple[float, ...], chosen: int) -> None:
    found = levels_of(after(*rates))
    assert {level for level, by in found if by == "skills"} == {chosen}
    others = [level for level, by in found if by == "turn"]
    assert len(others) == len(found) // OTHERS  # the others stay known
    assert set(others) == {0, 1, 2} - {chosen}


def test_the_first_round_goes_through_all_levels_and_the_exam_is_the_hardest() -> None:
    found, easiest = skills(), skills(levels="easiest")
    assert [found.level(index) for index in range(6)] == [(level, "turn") for level in (0, 1, 2, 0, 1, 2)]
    assert found.level(64) == (2, "exam")
    assert {easiest.level(index) for index in (0, 40, 64)} == {(0, "default")}


def test_episodes_of_a_group_are_of_one_level() -> None:
    found = skills(every=32, group=4, method="grpo")
    assert [found.level(index)[0] for index in range(12)] == [0] * 4 + [1] * 4 + [2] * 4


def test_a_skill_is_the_share_of_the_last_episodes_in_which_an_agent_earned_and_changes_between_rounds() -> None:
    found = skills(every=4, episodes=12)
    for index in range(4):
        play(found, index, index % 2, *(["a0"] if index < 3 else []), solved=index == 0)
        assert found.before(index) == {}
    assert found.before(4) == {"a0": {"level 0": 1.0, "level 1": 0.5}, "a1": {"level 0": 0.0, "level 1": 0.0}}
    for index in range(4, 8):
        play(found, index, 0, "a1")
        assert found.before(index)["a1"] == {"level 0": 0.0, "level 1": 0.0}
    assert found.before(8)["a1"]["level 0"] == pytest.approx(4 / 6)


def test_where_all_play_one_puzzle_one_that_solves_it_is_enough_and_else_those_count_who_earned() -> None:
    one = after(1.0, 1.0)
    assert one._share(next(iter(one._ended[0]))) == 1.0
    found = skills()
    play(found, 0, 0, "a1")
    assert found._share(next(iter(found._ended[0]))) == 0.5


def test_a_coordinator_reads_what_agents_can_do() -> None:
    found = after(1.0, 0.25)
    play(found, 64, 0)
    situation: Any = SimpleNamespace(
        goal="g", agents=("a0",), reports=(), directives=(), hints=(), skills={"a0": {"level 0": 1.0, "level 1": 0.25}}
    )
    assert "Lately a0 was right at level 0 100%, level 1 25%" in digest_lines(situation, ())
    situation.skills = {}
    assert not [line for line in digest_lines(situation, ()) if "Lately" in line]


def test_levels_are_chosen_and_recorded_and_a_run_killed_anywhere_chooses_the_same(tmp_path: Path) -> None:
    settings = {"levels": "fitting", "every": 6, "exam": {"episodes": 2}, "test": {"tasks": 0.3, "kl": 50.0}}
    world = {"id": "numbers-v0", "options": EASY}
    outcome = learned_run(tmp_path, learning=settings, world=world, episodes=12, count=1)
    openings = [r for r in read_records(outcome.run_dir / "journal.jsonl") if r["kind"] == "episode"]
    told = [(r["level"], r["level_by"]) for r in openings]
    assert told[:6] == [(level, "turn") for level in (0, 1, 2, 0, 1, 2)]
    assert {by for _, by in told[6:12]} == {"skills", "turn"}
    assert told[12:] == [(2, "exam")] * 2
    tiles = [len(r["agents"][0]["observation"].split()) - 3 for r in openings]
    assert tiles == [level + 1 for level, _ in told]
    ends = [r for r in read_records(outcome.run_dir / "journal.jsonl") if r["kind"] == "episode_end"]
    config = learning_config(tmp_path / "base", learning=settings, world=world, episodes=12)
    levels = {index: told[index][0] for index in range(6)}
    _, used = Trial(config, tmp_path, outcome.run_dir / "memory", {}).play(levels, {})  # as the acceptance test does
    assert used == sum(end["tokens"] for end in ends if end["episode"] < 6)
    lines = (outcome.run_dir / "journal.jsonl").read_bytes().count(b"\n")
    resume_from_cuts(outcome.run_dir, step=max(1, lines // 8))


def test_what_a_coordinator_was_told_of_skills_is_told_again(tmp_path: Path) -> None:
    outcome = learned_run(tmp_path, learning={"steps": 0, "exam": {"episodes": 1}})
    retelling, seen = Retelling.of_run(outcome.run_dir), {}
    for record in read_records(outcome.run_dir / "journal.jsonl"):
        retelling.take(record)
        if record["kind"] == "episode":
            seen[record["episode"]] = retelling.live[record["episode"]].request((), ()).skills
    assert seen[0] == seen[3] == {}
    assert set(seen[4]["a0"]) == {"level 0"}
    assert seen[4] == seen[7]
    assert seen[8] != {}


def test_levels_are_refused_where_there_is_one(tmp_path: Path) -> None:
    config = learning_config(write_base(tmp_path / "base"), learning={"levels": "fitting"})
    with pytest.raises(SwarmError, match=r"learning\.levels: fitting chooses .* numbers-v0 has one"):
        check_files(config, tmp_path / "experiment.yaml")
