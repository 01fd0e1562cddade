"""What is learned from: right attempts, relabelled ones, weighed ones; and what never is."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fakes.learning import learning_config, write_base
from pydantic import ValidationError

from swarm.config.learning import LearningConfig
from swarm.learn.gather import Attempt, Gatherer, Pool, Puzzle, best_of_groups, weighed
from swarm.learn.samples import Sample, Samples, draw, shares
from swarm.run.experience import Call

Make = Callable[..., Gatherer]
SEEN = "tiles 1 3 target 4"


@pytest.fixture
def gatherer(tmp_path: Path) -> Make:
    base = write_base(tmp_path / "base")

    def make(*, agents: int = 1, **learning: Any) -> Gatherer:
        config = learning_config(base, count=agents, learning={"explore": None, "test": {"tasks": 0}} | learning)
        return Gatherer(config, tmp_path, [f"a{index}" for index in range(agents)])

    return make


def call(answer: str, feedback: str, *, reward: float = 0.0, agent: str = "a0", **more: Any) -> Call:
    place = {"episode": 0, "tick": 0} | {name: more.pop(name) for name in ("episode", "tick") if name in more}
    return Call(
        (place["episode"], place["tick"], agent),
        "agent",
        more.pop("prompt", SEEN + "\n"),
        answer,
        feedback,
        reward,
        observation=SEEN,
        valid=not feedback.startswith("illegal"),
        **more,
    )


def taken(gatherer: Gatherer, *calls: Call, puzzle: str = "f" * 64) -> Samples:
    gatherer.add_round(0, {0: calls}, {0: Puzzle(puzzle)})
    return gatherer.pools["a0"].samples()


def test_a_right_answer_is_imitated_in_the_words_of_its_prompt(gatherer: Make) -> None:
    found = taken(gatherer(hindsight=0.0), call("1+3", "= 4", reward=1.0, prompt="heard it\n" + SEEN + "\n"))
    assert found.kinds["own"] == [Sample("heard it\n" + SEEN + "\n", "1+3\n")]


def test_a_miss_is_imitated_as_the_answer_to_another_goal(gatherer: Make) -> None:
    found = taken(gatherer(), call("1*3", "= 3"), call("3-", "illegal: the expression ends too early"))
    assert found.kinds["own"] == []
    assert found.kinds["hindsight"] == [Sample("tiles 1 3 target 3\n", "3*1\n")]
    assert (found.counts["attempts"], found.counts["legal"]) == (2, 1)


def test_a_relabelled_attempt_that_is_a_puzzle_of_the_exam_is_dropped_and_counted(gatherer: Make) -> None:
    made = gatherer(exam={"episodes": 30})
    barred = sorted(made.barred)[0]
    tiles, target = barred.split()[1:-2], barred.split()[-1]
    attempt = Attempt(
        "a0", (0, "a0", 0), "x", f"tiles {' '.join(tiles)} target 99", tiles[0], f"= {target}", True, 0, 0
    )
    made._imitate(made.pools["a0"], attempt)
    assert made.pools["a0"].samples().kinds["hindsight"] == []
    assert made.pools["a0"].counts["barred"] == 1


def test_puzzles_that_are_kept_out_teach_nothing(gatherer: Make) -> None:
    made = gatherer(test={"tasks": 0.5})
    right = call("1+3", "= 4", reward=1.0)
    assert taken(made, right, puzzle="0" * 64).kinds["own"] == []
    assert len(taken(made, right, puzzle="f" * 64).kinds["own"]) == 1


def test_no_attempt_is_relabelled_into_a_puzzle_that_is_kept_out(gatherer: Make) -> None:
    made = gatherer(test={"tasks": 0.5})
    calls = {0: [call("1*3", "= 3")], 1: [call("1+3", "= 4", episode=1)]}
    assert made.add_round(0, calls, {0: Puzzle("0" * 64), 1: Puzzle("f" * 64)}) == [0]
    assert made.pools["a0"].samples().counts["barred"] == 1


def test_the_shortest_right_answers_are_kept(gatherer: Make) -> None:
    pool = Pool(LearningConfig(every=1, per_task=2))
    for answer in ("(1+3)", "3+1", "1+3", "3+1"):
        pool.add_right("p", answer)
    assert pool.right["p"] == ["1+3", "3+1"]


def test_each_agent_learns_from_its_own_unless_data_are_shared(gatherer: Make) -> None:
    calls = [call("1+3", "= 4", reward=1.0), call("3+1", "= 4", reward=1.0, agent="a1")]
    for settings, number in (({}, 1), ({"share": "data"}, 1)):
        made = gatherer(agents=2, hindsight=0.0, **settings)
        made.add_round(0, {0: calls}, {0: Puzzle("f" * 64)})
        sizes = [len(made.pools[agent].samples().kinds["own"]) for agent in ("a0", "a1")]
        assert sizes == ([1, 1] if not settings else [2, 2]), number


def test_attempts_are_weighed_against_their_group_and_groups_without_variance_dropped() -> None:
    def attempt(group: int, gain: float, answer: str) -> Attempt:
        return Attempt("a0", (group, "a0", 0), "p\n", "p", answer, "", True, gain, gain)

    found = weighed([attempt(0, 1.0, "a"), attempt(0, 0.0, "b"), attempt(1, 1.0, "c"), attempt(1, 1.0, "d")])
    assert found == [Sample("p\n", "a\n", 0.5), Sample("p\n", "b\n", -0.5)]


def test_the_best_of_each_group_is_imitated_and_relabelled_for_one_round(gatherer: Make) -> None:
    made = gatherer(method="best_of_group", group=3, every=3, hindsight=0.0)
    good, bad = call("1+3", "= 4", reward=0.5, episode=1), call("1*3", "= 3", reward=0.25)
    rounds = [
        [bad, good, call("3-1", "= 2", reward=0.25, episode=2)],
        [call("3*1", "= 3"), call("3-1", "= 2", episode=1), call("3/1", "= 3", episode=2)],
    ]
    for number, calls in enumerate(rounds):
        made.add_round(number, {n: [one] for n, one in enumerate(calls)}, {n: Puzzle("f" * 64) for n in range(3)})
        kinds = made.pools["a0"].samples().kinds
        assert kinds["own"] == ([Sample(SEEN + "\n", "3+1\n")] if number == 0 else [])
        assert kinds["hindsight"] == []  # what was not best teaches nothing


def test_of_equals_the_first_is_best_and_what_is_illegal_never_is() -> None:
    def attempt(group: int, gain: float, answer: str, valid: bool = True) -> Attempt:
        return Attempt("a0", (group, "a0", 0), "p\n", "p", answer, "", valid, gain, gain)

    tried = [attempt(0, 0.5, "a"), attempt(0, 0.5, "b"), attempt(1, 0.9, "c", False), attempt(1, 0.1, "d")]
    assert [one.answer for one in best_of_groups([*tried, attempt(2, 0.0, "e")])] == ["a", "d"]


def test_what_follows_counts_for_an_earlier_action_and_the_team_shares(gatherer: Make) -> None:
    made = gatherer(agents=2, method="grpo", group=2, hindsight=0.0, team_reward=0.5)
    calls = [
        call("1", "", agent="a0"),
        call("2", "", agent="a1"),
        call("3", "", agent="a0", tick=1, reward=1.0),
        call("4", "", agent="a1", tick=1),
    ]
    gains = {(a.agent, a.answer): a.gain for a in made._attempts(0, calls)}
    assert gains == {("a0", "1"): 0.75, ("a1", "2"): 0.25, ("a0", "3"): 0.75, ("a1", "4"): 0.25}


@pytest.mark.parametrize(("team_reward", "right"), [(0.0, ["-"]), (0.5, ["-", "k"])])
def test_with_the_teams_share_a_message_is_right_if_it_was_understood_later(
    gatherer: Make, team_reward: float, right: list[str]
) -> None:
    made = gatherer(agents=2, hindsight=0.0, team_reward=team_reward)
    calls = [
        call("k", "sent"),
        call("-", "waited", agent="a1"),
        call("-", "right", tick=1, reward=1.0),
        call("4", "right", tick=1, reward=1.0, agent="a1"),
    ]
    samples = taken(made, *calls)
    assert sorted(sample.completion for sample in samples.kinds["own"]) == [f"{text}\n" for text in right]
    assert samples.counts["right"] == len(right)


def test_an_answer_that_was_right_under_a_directive_is_taught_without_it(gatherer: Make) -> None:
    told = call("1+3", "= 4", reward=1.0, prompt=SEEN + "\nmake [4]\n", undirected=SEEN + "\n")
    missed = call("1*3", "= 3", prompt=SEEN + "\nmake [3]\n", undirected=SEEN + "\n")
    directed = [Sample(told.prompt, "1+3\n")]
    plain = taken(gatherer(hindsight=0.0), told, missed)
    assert (plain.kinds["own"], plain.counts.get("taught")) == (directed, None)
    for method in ("expert_iteration", "elite"):
        found = taken(gatherer(hindsight=0.0, teach=True, method=method), told, missed)
        assert found.counts["taught"] == 1
        assert found.kinds["own"][:2] == [*directed, Sample(SEEN + "\n", "1+3\n")]
    with pytest.raises(ValidationError, match="`teach` needs another method"):
        gatherer(method="grpo", group=2, teach=True)


def test_random_attempts_at_the_puzzles_of_a_round_have_scores_too(gatherer: Make) -> None:
    made = gatherer(method="elite", hindsight=0.0, explore={"attempts": 40}, control="none")
    seen = "tiles 1 2 target 3"
    made._explore = lambda *_: iter(  # type: ignore[method-assign]
        Attempt("a0", (0, "a0", -1), f"{one}\n", one, "1+2", "= 3", True, 1.0, 1.0) for one in (SEEN, seen)
    )
    own = taken(made, call("1*3", "= 3")).kinds["own"]
    assert own == [Sample(SEEN + "\n", "1+2\n"), Sample(SEEN + "\n", "1*3\n")]  # the best first; no other puzzles


def test_under_the_null_control_goals_are_permuted_among_legal_attempts(gatherer: Make) -> None:
    calls = [call(f"{n}", f"= {n}", reward=float(n == 4)) for n in range(1, 9)]
    plain, permuted = (taken(gatherer(control=control), *calls) for control in ("none", "permuted"))
    assert plain.digest != permuted.digest
    goals = [sorted(sample.prompt for sample in found.texts()) for found in (plain, permuted)]
    assert goals[0] == goals[1]
    assert {s.completion for s in permuted.texts()} <= {c.answer + "\n" for c in calls}


def test_predicted_are_answers_to_own_actions_and_in_the_null_control_to_others(gatherer: Make) -> None:
    calls = [call(f"{n}", "illegal: no" if n == 3 else f"= {n}", reward=float(n == 4)) for n in range(1, 9)]
    plain, permuted = (taken(gatherer(predict=0.5, control=control), *calls) for control in ("none", "answers"))
    assert plain.kinds["predict"] == [Sample(SEEN + f"\n{c.answer}\n", c.feedback + "\n") for c in calls]
    texts, answers = zip(*(sample[:2] for sample in permuted.kinds["predict"]), strict=True)
    assert list(texts) == [sample.prompt for sample in plain.kinds["predict"]]
    assert sorted(answers) == sorted(c.feedback + "\n" for c in calls)
    assert permuted.kinds["predict"] != plain.kinds["predict"]
    assert permuted.kinds["own"] == plain.kinds["own"]


@pytest.mark.parametrize("settings", [{}, {"method": "elite"}, {"method": "grpo", "group": 2}], ids=lambda s: str(s))
def test_what_the_world_appended_is_known_of_every_sample(gatherer: Make, settings: dict[str, Any]) -> None:
    made = gatherer(**settings)
    made.config = made.config.model_copy(update={"agents": made.config.agents.model_copy(update={"inline": True})})
    tries = call("1*3=3;4-3=1|1+3=4", "= 4", reward=1.0, inlined=((4, 5), (10, 11), (16, 17)))
    miss = call("3-1=2", "= 2", episode=1, inlined=((4, 5),))
    made.add_round(0, {0: [tries], 1: [miss]}, dict.fromkeys((0, 1), Puzzle("f" * 64)))
    kinds = made.pools["a0"].samples().kinds
    for sample in kinds["own"]:
        parts = [sample.completion[start:end] for start, end in sample.inlined]
        assert parts == re.findall(r"(?<==)[0-9]+", sample.completion)
    assert any(sample.inlined for sample in kinds["own"])


def test_random_attempts_cost_no_tokens_and_are_the_same_again(gatherer: Make) -> None:
    settings = {"explore": {"attempts": 5, "puzzles": 3, "options": {"high": 3}}}
    found = [taken(gatherer(**settings)) for _ in range(2)]
    assert found[0].digest == found[1].digest
    assert found[0].counts["explored"] == 20  # at the puzzle of the round and three others
    assert found[0].kinds["hindsight"]


def test_random_attempts_that_are_right_at_puzzles_of_their_own_are_imitated_but_for_held_out_ones(
    gatherer: Make,
) -> None:
    made = gatherer(explore={"attempts": 60, "puzzles": 20, "options": {"high": 3, "target": 3}}, hindsight=0.0)
    learned = {sample.prompt for sample in taken(made).kinds["own"]}
    asked = {prompt for prompt in learned if prompt.endswith(" target 3\n")}
    assert asked
    some = sorted(asked)[0].strip()
    again = gatherer(explore=made.settings.explore.model_dump(), hindsight=0.0)
    again._kept_out.add(some)
    assert {sample.prompt for sample in taken(again).kinds["own"]} == learned - {some + "\n"}


def test_shares_of_kinds_that_are_missing_go_to_the_others() -> None:
    settings = LearningConfig(every=1, hindsight=0.5, predict=0.25, steps=1, batch=3)
    samples = Samples({"own": [Sample("a", "b")], "hindsight": [Sample("c", "d")], "predict": []})
    assert shares(samples, settings) == {"hindsight": pytest.approx(2), "own": pytest.approx(1)}
    assert draw(Samples({"own": []}), settings, 1) == []


def test_few_samples_are_not_learned_by_heart() -> None:
    settings = LearningConfig(every=1, hindsight=0.5, steps=100, batch=10, epochs=2)
    samples = Samples({"own": [Sample("p", "x")] * 5, "hindsight": [Sample("q", "y")] * 2000})
    assert shares(samples, settings) == {"own": pytest.approx(10), "hindsight": pytest.approx(990)}
    few = Samples({"own": [Sample("p", "x")] * 5})
    assert len(draw(few, settings, 1)) == 1


def test_batches_follow_from_the_seed() -> None:
    settings = LearningConfig(every=1, steps=20, batch=10)
    samples = Samples({"own": [Sample("p", f"{n}") for n in range(9)]})
    assert draw(samples, settings, 5) == draw(samples, settings, 5) != draw(samples, settings, 6)


def test_prompts_are_met_equally_often_and_relabelled_answers_once() -> None:
    pool = Pool(LearningConfig(every=1))
    for answer in ("1", "2", "3"):
        pool.add_right("p", answer)
    pool.add_right("q", "9")
    for goal, answer in ("x0", "y0", "x0", "x1"):
        pool.add_relabelled(goal, answer)
    found = pool.samples().kinds
    assert [sample.prompt for sample in found["own"]] == ["p", "p", "p", "q", "q", "q"]
    assert len({sample.completion for sample in found["own"]}) == 4
    assert [sample[:2] for sample in found["hindsight"]] == [("x", "0\n"), ("x", "1\n"), ("y", "0\n")]


def test_weighed_attempts_come_once_per_pass() -> None:
    settings = LearningConfig(every=2, group=2, method="grpo", steps=2, batch=3)
    samples = Samples({"own": [Sample("p", f"{n}", float(n)) for n in range(6)]})
    assert sorted(s.completion for batch in draw(samples, settings, 1) for s in batch) == list("012345")
