"""facts-v0: everybody reads documents of their own and is asked about everybody's."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from worlds import WorldError, check_world, make


def world(num_agents: int = 2, seed: int = 0, **options: Any) -> Any:
    found = make("facts-v0", num_agents, options)
    found.reset(seed)
    return found


def read_all(played: Any) -> tuple[dict[str, str], dict[str, str]]:
    """Read all pages; return what is observed then, and every fact that the world has vouched for."""
    known: dict[str, str] = {}
    observations: dict[str, str] = {}
    while any(played.action_pattern(agent) == "next" for agent in played.agents):
        reading = {agent: "next" for agent in played.agents if played.action_pattern(agent) == "next"}
        result = played.step(reading)
        observations = result.observations
        for info in result.infos.values():
            known |= dict(info.get("facts", []))
    return observations, known


@pytest.mark.parametrize(
    ("num_agents", "options"), [(4, {}), (1, {}), (3, {"desks": 7, "foreign": 1.0}), (5, {"desks": 2})]
)
def test_the_world_keeps_its_contract(num_agents: int, options: dict[str, Any]) -> None:
    assert check_world("facts-v0", num_agents=num_agents, options=options) == []


def test_everything_that_is_asked_was_told_to_somebody_and_knowing_it_solves_the_world() -> None:
    played = world(3, desks=6)
    asked, known = read_all(played)
    assert len(known) == 6 * 4
    while played.agents:
        actions = {agent: known.get(asked[agent], "wait") for agent in played.agents}
        result = played.step(actions)
        asked = result.observations
        for agent, info in result.infos.items():
            assert info["valid"]
            if actions[agent] != "wait":
                assert info["feedback"] == "right"
                assert list(info["facts"][0])[1] == actions[agent]
    assert played.solved


def test_the_questions_are_the_same_however_many_agents_share_them() -> None:
    alone, many = world(1, desks=4).state(), world(4, desks=4).state()
    assert (alone["documents"], alone["asked"]) == (many["documents"], many["asked"])
    assert alone != world(1, seed=1, desks=4).state()


@pytest.mark.parametrize("foreign", [0.0, 1.0])
def test_foreign_questions_stand_in_documents_of_others(foreign: float) -> None:
    state = world(3, desks=3, foreign=foreign, questions=3).state()
    for desk in range(3):
        for fact in state["asked"][3 * desk : 3 * desk + 3]:
            assert (fact in state["documents"][desk]) == (foreign == 0.0)


def test_a_passed_question_comes_again_a_wrong_answer_closes_it() -> None:
    played = world(1, desks=1, questions=2)
    asked, _ = read_all(played)
    first = asked["a0"]
    second = played.step({"a0": "pass"}).observations["a0"]
    assert second != first
    assert played.step({"a0": "pass"}).observations["a0"] == first
    result = played.step({"a0": "answer no idea"})
    assert result.infos["a0"]["feedback"] == "wrong, closed for good"
    assert "facts" not in result.infos["a0"]
    assert result.observations["a0"] == second
    result = played.step({"a0": "answer no idea"})
    assert result.terminations["a0"]
    assert not played.solved


def test_facts_come_from_files_of_both_kinds(tmp_path: Path) -> None:
    rows = [{"question": f"what  is {n}?", "answer": f"it is {n}"} for n in range(20)]
    (tmp_path / "faq.json").write_text(json.dumps({"one": rows[:9], "two": rows[9:]}))
    (tmp_path / "faq.csv").write_text("question,answer\n" + "".join(f"what is {n}?,it is {n}\n" for n in range(20)))
    by_file = [world(2, file=str(tmp_path / name)).state()["documents"] for name in ("faq.json", "faq.csv")]
    assert by_file[0] == by_file[1]
    assert re.fullmatch(r"what is \d+\?", by_file[0][0][0][0])


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        (None, {}, "cannot read"),
        ("[1]", {}, "does not hold objects or rows"),
        ('[{"question": "a"}]', {}, "does not hold objects or rows"),
        ('[{"question": "a", "answer": "b"}]', {}, "need 16 facts, there are 1; lower"),
        (None, {"desks": 200, "pages": 4, "file": None}, "need 1600 facts"),
    ],
)
def test_bad_files_are_refused(tmp_path: Path, content: str | None, options: dict[str, Any], message: str) -> None:
    if content is not None:
        (tmp_path / "faq.json").write_text(content)
    with pytest.raises(WorldError, match=message):
        make("facts-v0", 2, {"file": str(tmp_path / "faq.json"), **options})
