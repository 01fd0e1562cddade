"""An arm changes what its question needs and nothing else, and one that a world cannot express is named."""

from __future__ import annotations

import pytest
from fakes.scripted_run import experiment

from swarm.compare.arms import ARMS, chosen_arms, equal_terms, not_applicable, solo_config
from swarm.config.engine import RandomEngine
from swarm.config.experiment import ExperimentConfig
from swarm.errors import SwarmError

pytestmark = pytest.mark.thorough


def test_every_arm_keeps_puzzles_seed_and_token_budget() -> None:
    base = experiment()
    for arm in ARMS:
        config = equal_terms(base, arm, 5, 20)
        assert (config.seed, config.episodes) == (5, 20)
        assert config.budget == equal_terms(base, "swarm", 5, 20).budget
        assert config.budget.tokens == 6000
        assert config.world.id == base.world.id
        ExperimentConfig.model_validate(config.model_dump())


def test_arms_change_what_their_question_needs_and_nothing_else() -> None:
    arms = {arm: equal_terms(experiment(), arm, 1, 20) for arm in ARMS}
    swarm = arms["swarm"]
    assert swarm.coordinator.kind == "model"
    assert (arms["solo"].agents.count, arms["solo"].world.options) == (1, {"view": "full"})
    assert (arms["solo"].coordinator.kind, arms["solo"].topology.kind) == ("none", "none")
    split = arms["solo_split"]
    assert (split.agents.count, split.agents.turns, split.coordinator.kind) == (2, "one_at_a_time", "rules")
    assert split.world.options == {}
    assert arms["time_slice"].model_copy(update={"agents": swarm.agents, "name": swarm.name}) == swarm
    assert arms["time_slice"].agents.turns == "one_at_a_time"
    assert (arms["independent"].agents.count, arms["independent"].world.options) == (8, {"view": "full"})
    assert (arms["no_messages"].coordinator.kind, arms["no_messages"].world) == ("none", swarm.world)
    assert (arms["rules"].coordinator.kind, arms["rules"].agents) == ("rules", swarm.agents)
    assert arms["shuffled"].coordinator == swarm.coordinator.model_copy(update={"shuffled": True})
    assert arms["random"].agents == swarm.agents.model_copy(update={"engine": RandomEngine(model="policies/agent")})


def test_tick_limit_is_lifted_so_that_single_workers_can_spend_their_tokens() -> None:
    base = experiment(budget={"tokens": 6000, "ticks": 50})
    assert all(equal_terms(base, arm, 1, 5).budget.ticks is None for arm in ARMS)
    assert solo_config(base).budget.ticks is None


def test_baseline_keeps_a_tick_budget_when_there_are_no_tokens() -> None:
    assert solo_config(experiment(budget={"ticks": 50})).budget.ticks == 50


def test_comparison_without_token_budget_is_refused() -> None:
    with pytest.raises(SwarmError, match=r"budget\.tokens"):
        equal_terms(experiment(budget={"ticks": 50}), "solo", 1, 5)


def test_arm_that_a_world_cannot_express_is_named_not_skipped_in_silence() -> None:
    graph = experiment(world={"id": "graph-v0"})
    reason = not_applicable("independent", graph)
    assert reason is not None
    assert "not applicable to graph-v0" in reason
    assert not_applicable("solo", graph) is None
    assert solo_config(graph).agents.count == 1
    assert solo_config(graph).world == graph.world


def test_arms_that_need_a_coordinator_do_not_apply_to_a_world_that_none_knows() -> None:
    numbers = experiment(world={"id": "numbers-v0"}, coordinator={"kind": "none"})
    assert "it has no playbook" in str(not_applicable("rules", numbers))
    assert "it has no coordinator" in str(not_applicable("shuffled", numbers))
    assert not_applicable("no_messages", numbers) is None


def test_a_language_model_in_a_world_without_a_playbook_still_has_its_null_control() -> None:
    words = experiment(
        world={"id": "numbers-v0"}, coordinator={"kind": "model", "engine": {"kind": "transformers", "model": "any"}}
    )
    assert not_applicable("shuffled", words) is None
    assert "it has no playbook" in str(not_applicable("rules", words))


def test_unknown_world_is_a_user_error() -> None:
    with pytest.raises(SwarmError, match="not found"):
        not_applicable("independent", experiment(world={"id": "split-numbrs-v0"}))


def test_misspelt_arm_gets_the_nearest_name() -> None:
    with pytest.raises(SwarmError, match="did you mean 'shuffled'"):
        chosen_arms(["shufled"])
    assert chosen_arms(["random", "solo"]) == ["solo", "random"]
    assert chosen_arms([]) == list(ARMS)
