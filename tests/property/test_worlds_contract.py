"""Every built-in world keeps the contract of `worlds.protocol`, whatever the agents say."""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worlds import available, check_world, make, registry, world_class

WORLDS = [
    "archive-v0",
    "codebook-v0",
    "echo-v0",
    "facts-v0",
    "graph-v0",
    "numbers-v0",
    "score-v0",
    "signal-v0",
    "split-numbers-v0",
    "vault-v0",
]

# What an agent may do in one step: pass (None), follow the random policy (True), or say anything.
_speech = st.one_of(
    st.none(),
    st.just(True),
    st.text(max_size=40),
    st.from_regex(r"[0-9()+*/ \-]{0,30}", fullmatch=True),
    st.from_regex(r"(go|take|look) ?[0-9a-z]{0,4}", fullmatch=True),
)
_episode = st.lists(st.lists(_speech, min_size=3, max_size=3), max_size=6)


def _play(world_id, seed, episode):
    """Return everything that one episode shows, as JSON text."""
    world = make(world_id, 3)
    shown = [world.reset(seed), world.state()]
    rng = random.Random(seed)
    for speeches in episode:
        actions = {}
        for agent, speech in zip(world.possible_agents, speeches, strict=True):
            if speech is True and agent in world.agents:
                actions[agent] = world.sample_action(agent, "", rng)
            elif isinstance(speech, str):
                actions[agent] = speech
        live = list(world.agents)
        result = world.step(actions)
        acting = [agent for agent in live if agent in actions]
        for agent in acting:
            assert result.infos[agent]["feedback"]
            assert isinstance(result.infos[agent]["valid"], bool)
        assert not [a for a in live if result.terminations.get(a) and result.truncations.get(a)]
        shown += [result, list(world.agents), world.state(), world.render()]
    return json.dumps(shown, sort_keys=True, allow_nan=False)


def test_all_available_worlds_are_under_contract(monkeypatch):
    monkeypatch.setattr(registry, "_registered", {})  # other tests of this process may have registered worlds
    assert available() == WORLDS


@pytest.mark.parametrize("world_id", WORLDS)
def test_world_passes_its_check(world_id):
    assert check_world(world_id, num_agents=4) == []


@pytest.mark.parametrize("world_id", WORLDS)
def test_world_of_two_agents_passes_its_check(world_id):
    assert check_world(world_id, seeds=(11,), num_agents=2) == []


@pytest.mark.parametrize("world_id", WORLDS)
def test_card_says_what_agents_read_and_write(world_id):
    card = world_class(world_id).card().lower()
    assert "observation" in card
    assert "action" in card


@pytest.mark.parametrize("world_id", WORLDS)
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**63 - 1), episode=_episode)
def test_any_speech_is_answered_and_replays_to_the_same_episode(world_id, seed, episode):
    assert _play(world_id, seed, episode) == _play(world_id, seed, episode)


@pytest.mark.parametrize("world_id", WORLDS)
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**63 - 1), directive=st.text(max_size=30), draw=st.integers(0, 999))
def test_random_policy_speaks_the_worlds_grammar_under_any_directive(world_id, seed, directive, draw):
    world = make(world_id, 2)
    world.reset(seed)
    for agent in world.agents:
        action = world.sample_action(agent, directive, random.Random(draw))
        pattern = world.action_pattern(agent)
        assert pattern is None or re.fullmatch(pattern, action)


@pytest.mark.process
def test_episodes_do_not_depend_on_the_hash_seed_of_the_process():
    program = f"""
import hashlib, random, sys
from worlds import make
import json
digest = hashlib.sha256()
for world_id in {WORLDS!r}:
    for seed in range(3):
        world, rng = make(world_id, 4), random.Random(seed)
        shown = [world.reset(seed)]
        for _ in range(8):
            actions = {{a: world.sample_action(a, "", rng) for a in world.agents}}
            shown += [actions, world.step(actions), world.state(), world.tools(), world.render()]
        digest.update(json.dumps(shown).encode())
sys.stdout.write(digest.hexdigest())
"""
    digests = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for hash_seed in ("0", "1", "7")
    }
    assert len(digests) == 1
    assert len(digests.pop()) == hashlib.sha256().digest_size * 2
