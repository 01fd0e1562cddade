"""Which requests what was learned is meant for."""

from __future__ import annotations

import pytest

from swarm.chat.scope import Scope
from swarm.learn.ordinary import ordinary_requests
from ulm.checkpoint import load_checkpoint


@pytest.fixture(scope="module")
def scope(tiny_policy):
    return Scope(load_checkpoint(tiny_policy), ordinary_requests()[:24])


def test_the_nearest_known_request_decides(scope):
    taught = ["tiles 1 2 3 target 3"]
    assert scope.nearest("tiles 1 2 3 target 2", taught).is_taught
    assert not scope.nearest(f"{scope.ordinary[3]} ", taught).is_taught
    assert not scope.nearest("tiles 1 2 3 target 2", []).is_taught


def test_a_request_that_keeps_its_answer_shields_those_near_it(scope):
    taught, request = ["tiles 1 2 3 target 3"], "tiles 1 2 3 target 2"
    found = scope.nearest(request, taught, kept=[request])
    assert (found.is_taught, found.request) == (False, request)


def test_what_decides_does_not_depend_on_what_was_asked_before(scope, tiny_policy):
    fresh = Scope(load_checkpoint(tiny_policy), scope.ordinary)
    taught = ["tiles 1 2 3 target 3"]
    scope.nearest("half", taught)
    assert fresh.nearest("made 2", taught) == scope.nearest("made 2", taught)


def test_a_taught_request_beside_ordinary_ones_takes_some_of_them(scope):
    assert scope.num_kept([]) == len(scope.ordinary)
    assert scope.num_kept(["tiles 1 2 3 target 3"]) == len(scope.ordinary)
    assert scope.num_kept(scope.ordinary[:6]) < len(scope.ordinary)


def test_ordinary_requests_are_many_and_none_twice():
    found = ordinary_requests()
    assert len(set(found)) == len(found) >= 200


def test_a_text_that_is_near_to_nothing_is_left_to_the_base(scope, monkeypatch):
    taught, request = ["tiles 1 2 3 target 3"], "tiles 1 2 3 target 2"
    assert scope.nearest(request, taught).is_taught
    monkeypatch.setattr("swarm.chat.scope.LEAST", 1.01)
    assert not scope.nearest(request, taught).is_taught
    assert scope.num_kept(scope.ordinary[:6]) == len(scope.ordinary)
