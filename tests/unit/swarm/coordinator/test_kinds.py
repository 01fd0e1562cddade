"""The coordinators: what they direct, what they are charged, and the null control that shuffles."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import pytest
from pydantic import ValidationError

from swarm.backends.protocol import Structure, TextResult
from swarm.config.experiment import CoordinatorConfig
from swarm.coordinator.kinds import (
    BriefedCoordinator,
    RulesCoordinator,
    ShuffledCoordinator,
    make_coordinator,
)
from swarm.coordinator.protocol import Coordinator, Setup
from swarm.errors import SwarmError
from swarm.messages import DirectReply, DirectRequest
from swarm.prompt import STOP
from worlds.protocol import Briefing, Report

AGENTS = ("a0", "a1", "a2", "a3")
ULM = {"kind": "ulm", "model": "m"}


def _count(texts):
    """One token per character: every text costs what it is long."""
    return [len(text) for text in texts]


def _request(*, agents=AGENTS, reports=(), unread=0, max_tokens=None, seed=0, tick=0):
    told = tuple(Report(0, agent, text) for agent, text in reports)
    key = (0, tick, "coordinator")
    return DirectRequest("goal", agents, told, seed=seed, key=key, max_tokens=max_tokens, unread=unread)


@dataclass
class _Book:
    """Directs agents by a fixed table; its model answers are `agent=text` words."""

    table: dict[str, str] = field(default_factory=dict)
    prompts: tuple[tuple[tuple[str, ...], str], ...] = ()

    def rules(self, request):
        return dict(self.table)

    def briefings(self, request):
        return [Briefing(agents, prompt) for agents, prompt in self.prompts]

    def declined(self, text, briefing, cut):
        return [f"not {text}{' cut' if cut else ''}"] if text else []

    def parse(self, text, briefing):
        words = dict(word.split("=") for word in text.split() if "=" in word)
        return {agent: words[agent] for agent in briefing.agents if agent in words}


@dataclass
class _Engine:
    """Answers from a table of prompts and keeps the batches that it was asked."""

    answers: dict[str, str] = field(default_factory=dict)
    batches: list = field(default_factory=list)
    finish: str = "stop"

    def count_tokens(self, texts):
        return _count(texts)

    def count_prompts(self, requests):
        return _count([request.prompt for request in requests])

    def generate(self, requests, deadline_s=None):
        self.batches.append(list(requests))
        texts = [self.answers.get(request.prompt, "") for request in requests]
        return [
            TextResult(
                text, len(request.prompt), len(text) + 1, self.finish, "broke" if self.finish == "fault" else None
            )
            for request, text in zip(requests, texts, strict=True)
        ]


class _Inner(Coordinator):
    """A coordinator that says the same to every request, at a cost."""

    def __init__(self, directives):
        super().__init__(Setup(CoordinatorConfig(), _count))
        self.directives = directives

    def direct(self, requests):
        return [DirectReply(r.key, dict(self.directives), 7, 5, 2, fault="noted") for r in requests]


def _model(engine, book, **config):
    section = CoordinatorConfig(kind="model", engine=ULM, max_new_tokens=10, **config)
    return BriefedCoordinator(Setup(section, _count, book, engine))


def _rules(book):
    return RulesCoordinator(Setup(CoordinatorConfig(kind="rules"), _count, book))


_TWO = ((("a0", "a1"), "one"), (("a2", "a3"), "two"))


def test_what_each_answer_declined_is_kept_under_the_first_agent_of_its_briefing():
    engine = _Engine({"one": "a0=x", "two": ""})
    (reply,) = _model(engine, _Book(prompts=_TWO)).direct([_request()])
    assert reply.declined == {"a0": ["not a0=x"]}


def test_what_may_be_offered_again_was_not_declined():
    engine = _Engine({"one": "a0=x", "two": "a2=y"})
    (reply,) = _model(engine, _Book(prompts=_TWO), reoffer_declined=True).direct([_request()])
    assert (reply.directives, reply.declined) == ({"a0": "x", "a2": "y"}, {})


def test_a_briefing_that_was_not_paid_or_failed_passes_nothing_over():
    engine = _Engine({"one": "a0=x", "two": "a2=y"})
    (poor,) = _model(engine, _Book(prompts=_TWO)).direct([_request(max_tokens=15)])
    assert (poor.calls, poor.declined) == (1, {"a0": ["not a0=x"]})
    (failed,) = _model(_Engine({"one": "a0=x"}, finish="fault"), _Book(prompts=_TWO)).direct([_request()])
    assert failed.declined == {}


def test_an_answer_is_kept_to_the_pattern_of_its_briefing():
    class Marking(_Book):
        def briefings(self, request):
            return [Briefing(("a0",), "one", {}, "5[+-]"), Briefing(("a1",), "two")]

    engine = _Engine()
    _model(engine, Marking()).direct([_request()])
    ((marked, free),) = engine.batches
    assert (marked.structure, marked.stop) == (Structure(regex="5[+-]"), ())
    assert (free.structure, free.stop) == (None, (STOP,))


def test_the_last_word_of_an_answer_that_was_cut_is_not_read():
    engine = _Engine({"one": "a0=x a1=12", "two": "a2=y"}, finish="length")
    (reply,) = _model(engine, _Book(prompts=_TWO)).direct([_request()])
    assert reply.directives == {"a0": "x"}
    assert reply.declined == {"a0": ["not a0=x cut"]}


# Rules


def test_rules_are_charged_for_the_unread_reports_and_the_directives():
    coordinator = RulesCoordinator(
        Setup(CoordinatorConfig(kind="rules"), _count, _Book(table={"a0": "go 7", "a1": "take red"}))
    )
    (reply,) = coordinator.direct([_request(reports=[("a0", "old news"), ("a0", "four"), ("a1", "fives")], unread=2)])
    assert reply.directives == {"a0": "go 7", "a1": "take red"}
    assert (reply.prompt_tokens, reply.generated_tokens, reply.calls) == (4 + 5, 4 + 8, 0)


def test_rules_without_news_and_directives_cost_nothing():
    (reply,) = _rules(_Book()).direct([_request(reports=[("a0", "old news")])])
    assert reply == DirectReply((0, 0, "coordinator"))


@pytest.mark.parametrize(("max_tokens", "affordable"), [(8, True), (7, False), (0, False)])
def test_rules_that_the_budget_cannot_pay_direct_nothing_and_cost_nothing(max_tokens, affordable):
    coordinator = _rules(_Book(table={"a0": "go 7"}))
    (reply,) = coordinator.direct([_request(reports=[("a0", "four")], unread=1, max_tokens=max_tokens)])
    assert bool(reply.directives) == affordable
    assert reply.prompt_tokens + reply.generated_tokens == (8 if affordable else 0)


def test_rules_answer_each_request_by_itself_and_in_order():
    coordinator = _rules(_Book(table={"a0": "go 7"}))
    rich, poor = _request(tick=1), _request(tick=2, max_tokens=1)
    replies = coordinator.direct([rich, poor, rich])
    assert [reply.key[1] for reply in replies] == [1, 2, 1]
    assert replies == [coordinator.direct([request])[0] for request in (rich, poor, rich)]


# The µLM


def test_a_model_reads_every_briefing_and_pays_for_prompts_answers_and_calls():
    book = _Book(prompts=((("a0", "a2"), "left"), (("a1", "a3"), "right")))
    engine = _Engine({"left": "a0=x a2=yy", "right": "a3=z a0=stolen"})
    (reply,) = _model(engine, book).direct([_request()])
    assert reply.directives == {"a0": "x", "a2": "yy", "a3": "z"}
    assert (reply.prompt_tokens, reply.generated_tokens, reply.calls) == (4 + 5, 11 + 15, 2)


def test_a_model_answers_all_requests_in_one_batch():
    book = _Book(prompts=((("a0",), "left"), (("a1",), "right")))
    engine = _Engine({"left": "a0=x", "right": "a1=y"})
    replies = _model(engine, book).direct([_request(tick=1), _request(tick=2)])
    assert [len(batch) for batch in engine.batches] == [4]
    assert [(reply.key[1], reply.directives) for reply in replies] == [(t, {"a0": "x", "a1": "y"}) for t in (1, 2)]


def test_a_model_passes_its_sampling_settings_on():
    engine = _Engine()
    coordinator = _model(engine, _Book(prompts=((("a0",), "left"),)), temperature=0.3)
    coordinator.direct([_request()])
    ((asked,),) = engine.batches
    assert (asked.prompt, asked.max_new_tokens, asked.temperature) == ("left", 10, 0.3)
    assert STOP in asked.stop


def test_briefings_are_sampled_with_their_own_seeds_that_follow_from_the_request():
    book = _Book(prompts=((("a0",), "left"), (("a1",), "right")))

    def seeds(seed):
        engine = _Engine()
        _model(engine, book).direct([_request(seed=seed)])
        return [asked.seed for asked in engine.batches[0]]

    assert len({*seeds(1), *seeds(2)}) == 4
    assert seeds(1) == seeds(1)


def test_a_model_that_the_budget_cannot_pay_is_not_asked_and_costs_nothing():
    engine = _Engine({"left": "a0=x"})
    (reply,) = _model(engine, _Book(prompts=((("a0",), "left"),))).direct([_request(max_tokens=13)])
    assert reply == DirectReply((0, 0, "coordinator"))
    assert [asked for batch in engine.batches for asked in batch] == []


def test_a_model_reads_as_many_briefings_as_the_budget_can_pay():
    book = _Book(prompts=((("a0",), "left"), (("a1",), "right")))
    engine = _Engine({"left": "a0=x", "right": "a1=y"})
    coordinator = _model(engine, book)
    (one,) = coordinator.direct([_request(max_tokens=28)])
    (both,) = coordinator.direct([_request(max_tokens=29)])
    assert (one.directives, one.calls) == ({"a0": "x"}, 1)
    assert (both.directives, both.calls) == ({"a0": "x", "a1": "y"}, 2)


def test_a_poor_request_does_not_starve_its_neighbours():
    engine = _Engine({"left": "a0=x"})
    coordinator = _model(engine, _Book(prompts=((("a0",), "left"),)))
    replies = coordinator.direct([_request(max_tokens=1), _request(max_tokens=100)])
    assert [reply.directives for reply in replies] == [{}, {"a0": "x"}]
    assert [reply.calls for reply in replies] == [0, 1]


def test_an_answer_that_says_nothing_is_still_paid():
    engine = _Engine({"left": "mumble"})
    (reply,) = _model(engine, _Book(prompts=((("a0",), "left"),))).direct([_request()])
    assert reply.directives == {}
    assert (reply.prompt_tokens, reply.generated_tokens, reply.calls) == (4, 7, 1)


def test_without_briefings_a_model_costs_nothing():
    (reply,) = _model(_Engine(), _Book()).direct([_request()])
    assert reply == DirectReply((0, 0, "coordinator"))


# The null control


def _shuffle(directives, agents, seed):
    (reply,) = ShuffledCoordinator(_Inner(directives), None).direct([_request(agents=tuple(agents), seed=seed)])
    return reply


@pytest.mark.parametrize("count", [2, 3, 4, 8, 33])
def test_shuffled_never_leaves_an_agent_its_own_directive(count):
    meant = {f"a{i}": f"for a{i}" for i in range(count)}
    for seed in range(50):
        given = _shuffle(meant, meant, seed).directives
        assert all(given[agent] != meant[agent] for agent in meant)


@pytest.mark.parametrize("directed", [[], ["a1"], ["a0", "a3"], ["a0", "a1", "a2", "a3"]])
def test_shuffled_keeps_the_texts_and_gives_them_to_agents_of_the_request(directed):
    meant = {agent: "go 7" if agent in ("a0", "a3") else "take red" for agent in directed}
    for seed in range(20):
        given = _shuffle(meant, AGENTS, seed).directives
        assert Counter(given.values()) == Counter(meant.values())
        assert set(given) <= set(AGENTS)
        assert list(given) == sorted(given)


def test_shuffled_with_few_directives_moves_them_too():
    for seed in range(50):
        assert _shuffle({"a1": "go 7"}, AGENTS, seed).directives.get("a1") is None


def test_shuffled_is_decided_by_the_seed_of_the_request_alone():
    meant = {f"a{i}": f"for a{i}" for i in range(8)}
    assert _shuffle(meant, meant, 5) == _shuffle(meant, meant, 5)
    assert len({tuple(_shuffle(meant, meant, seed).directives.items()) for seed in range(10)}) > 5


def test_shuffled_costs_what_the_coordinator_behind_it_costs():
    reply = _shuffle({"a0": "go 7"}, AGENTS, 1)
    assert (reply.prompt_tokens, reply.generated_tokens, reply.calls, reply.fault) == (7, 5, 2, "noted")


# Which coordinator a config asks for


def test_a_config_gets_the_coordinator_that_it_names():
    def made(kind, model=None, **config):
        return make_coordinator(CoordinatorConfig(kind=kind, **config), "graph-v0", model, _count)

    assert made("none").direct([_request()]) == [DirectReply((0, 0, "coordinator"))]
    assert isinstance(made("rules"), RulesCoordinator)
    assert isinstance(made("model", _Engine(), engine=ULM), BriefedCoordinator)
    assert isinstance(made("rules", shuffled=True).inner, RulesCoordinator)
    assert isinstance(made("model", _Engine(), engine=ULM, shuffled=True).inner, BriefedCoordinator)


@pytest.mark.parametrize(
    ("section", "says"),
    [
        ({"kind": "model"}, "kind 'model' needs `engine`"),
        ({"kind": "rules", "engine": ULM}, "`engine` is for coordinators that ask a model"),
        ({"kind": "none", "shuffled": True}, "`shuffled` has nothing to shuffle"),
        ({"kind": "rules", "menu": 3}, "`menu` is for models and people"),
        ({"kind": "rules", "reoffer_declined": True}, "`reoffer_declined` is for models trained on briefings"),
        ({"kind": "model", "engine": {**ULM, "prompt": "chat"}, "answers": "marks"}, "`answers` is for models trained"),
        ({"kind": "roles"}, "no coordinator 'roles'; did you mean 'rules'. There are none, rules, model, human"),
    ],
)
def test_settings_that_do_not_fit_the_kind_are_refused(section, says):
    with pytest.raises(ValidationError, match=says):
        CoordinatorConfig.model_validate(section)


def test_a_world_without_a_playbook_is_named_with_the_way_out():
    with pytest.raises(SwarmError, match=r"numbers-v0 has no playbook.*kind: none"):
        make_coordinator(CoordinatorConfig(kind="rules"), "numbers-v0", None, _count)
    make_coordinator(CoordinatorConfig(kind="none"), "numbers-v0", None, _count)
