"""What a host owes its pool: every request an answer, whatever the model behind it does."""

import dataclasses
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from fakes.hosts import host_spec
from fakes.memory_policy import shared

from swarm.agents.host import MAX_ACTION_CHARACTERS, Host, HostSpec, SharedModel, TokenCounter
from swarm.backends.models import ChatFormat
from swarm.config.engine import UlmEngine
from swarm.config.experiment import AgentsConfig
from swarm.errors import SwarmError
from swarm.messages import ActReply, ActRequest, DirectReply, DirectRequest
from ulm.decode.engine import Engine, GenerationRequest, GenerationResult
from ulm.tokenizer import Tokenizer
from worlds.echo.world import EchoWorld

Answer = Callable[[GenerationRequest], Any]


class FakeEngine:
    """Answers as a function says, which is asked with texts, and writes down what it was asked."""

    tokenizer = Tokenizer.bytes()

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.batches: list[list[str]] = []
        self.requests: list[GenerationRequest] = []

    def generate(self, requests: Sequence[GenerationRequest], deadline_s: float | None = None) -> list[Any]:
        requests = [dataclasses.replace(r, prompt=self.tokenizer.decode(r.prompt)) for r in requests]
        self.batches.append([request.prompt for request in requests])
        self.requests += requests
        return [self.answer(request) for request in requests]


def result(text: Any) -> GenerationResult:
    return GenerationResult(text, 3, 2, "stop")


def request(agent: str, prompt: str = "", tick: int = 0) -> ActRequest:
    return ActRequest((0, tick, agent), prompt or agent, 8)


def spec(policy: str = "ulm", coordinator: str = "none", **changes: Any) -> HostSpec:
    engine = {"kind": policy, **({"model": "somewhere"} if policy == "ulm" else {})}
    agents = AgentsConfig(engine=engine, temperature=0.3)
    return host_spec(agents, coordinator, timeout_s=5.0, **changes)


@pytest.fixture
def make_host(monkeypatch: pytest.MonkeyPatch) -> Callable[[Answer], tuple[Host, FakeEngine]]:
    def make(answer: Answer) -> tuple[Host, FakeEngine]:
        engine = FakeEngine(answer)
        monkeypatch.setattr(Host, "_engine", lambda self, path, parts: engine)
        return Host(spec(), {"somewhere": SharedModel({}, "", 0, 1, {})}), engine

    return make


MakeHost = Callable[[Answer], tuple[Host, FakeEngine]]


def test_replies_keep_the_order_of_the_requests_and_what_they_cost(make_host: MakeHost) -> None:
    host, engine = make_host(lambda r: GenerationResult(r.prompt.upper(), len(r.prompt), 4, "stop"))
    replies = host.act([request("b", "two"), request("a", "three")])
    assert replies == [ActReply((0, 0, "b"), "TWO", 3, 4), ActReply((0, 0, "a"), "THREE", 5, 4)]
    assert engine.batches == [["two", "three"]]


def test_one_poisonous_request_does_not_take_its_neighbours_down(make_host: MakeHost) -> None:
    def answer(r: GenerationRequest) -> GenerationResult:
        if r.prompt == "poison":
            raise RuntimeError("boom")
        return result(f"ok {r.prompt}")

    host, _ = make_host(answer)
    replies = host.act([request("a0"), request("a1", "poison"), request("a2")])
    assert [reply.text for reply in replies] == ["ok a0", "", "ok a2"]
    assert [reply.fault for reply in replies] == [None, "model raised RuntimeError: boom", None]
    assert (replies[1].prompt_tokens, replies[1].generated_tokens) == (0, 0)


def test_who_does_not_explore_says_what_is_most_likely(make_host: MakeHost) -> None:
    host, _ = make_host(lambda r: result(f"at {r.temperature}"))
    asked = [request("a0"), dataclasses.replace(request("a1"), greedy=True)]
    assert [reply.text for reply in host.act(asked)] == [f"at {host.spec.config.agents.temperature}", "at 0.0"]
    assert host.spec.config.agents.temperature > 0


def test_a_model_that_loses_answers_is_a_fault_of_each_request(make_host: MakeHost) -> None:
    host, engine = make_host(lambda r: result("ok"))
    engine.generate = lambda requests, deadline_s=None: []  # type: ignore[method-assign]
    replies = host.act([request("a0"), request("a1")])
    assert [reply.key[2] for reply in replies] == ["a0", "a1"]
    assert all(reply.fault and "model raised" in reply.fault for reply in replies)


def answering(monkeypatch: pytest.MonkeyPatch, inline: Callable[[str, str], Any], answer: Answer) -> Host:
    """Return a host whose world answers inline."""
    monkeypatch.setattr(EchoWorld, "inline", staticmethod(inline))
    monkeypatch.setattr(Host, "_engine", lambda self, path, parts: FakeEngine(answer))
    one = spec()
    agents = one.config.agents.model_copy(update={"inline": True})
    one = dataclasses.replace(one, config=one.config.model_copy(update={"agents": agents}))
    return Host(one, {"somewhere": SharedModel({}, "", 0, 1, {})})


def test_the_world_answers_inline_what_each_agent_writes_of_what_it_sees(monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(r: GenerationRequest) -> GenerationResult:
        assert r.inline is not None
        said = r.inline("3*7=") or ""
        return GenerationResult(f"3*7={said}", 3, 4, "stop", inlined=((4, 4 + len(said)),), inlined_tokens=2)

    host = answering(monkeypatch, lambda observation, text: f"{observation}:{text}", answer)
    asked = [dataclasses.replace(request(f"a{i}"), observation=f"room {i}") for i in range(2)]
    replies = host.act(asked)
    assert [(reply.text, reply.inlined) for reply in replies] == [
        ("3*7=room 0:3*7=", ((4, 15),)),
        ("3*7=room 1:3*7=", ((4, 15),)),
    ]
    assert [(reply.prompt_tokens, reply.generated_tokens) for reply in replies] == [(5, 4), (5, 4)]


@pytest.mark.parametrize(
    ("bad", "told"), [(1 / 2, "AttributeError"), (KeyError("no"), "KeyError: 'no'"), ("x" * 2000, "1000 bytes")]
)
def test_a_world_that_answers_nonsense_inline_is_a_fault_of_that_agent(
    monkeypatch: pytest.MonkeyPatch, bad: Any, told: str
) -> None:
    def inline(observation: str, text: str) -> Any:
        if observation != "bad":
            return "21"
        if isinstance(bad, Exception):
            raise bad
        return bad

    host = answering(monkeypatch, inline, lambda r: result(f"3*7={r.inline and r.inline('3*7=')}"))
    asked = [dataclasses.replace(request(f"a{i}"), observation=seen) for i, seen in enumerate(("good", "bad"))]
    good, poor = host.act(asked)
    assert (good.text, good.fault) == ("3*7=21", None)
    assert (poor.text, poor.inlined, poor.tokens) == ("", (), 5)
    assert poor.fault is not None
    assert poor.fault.startswith("an inline answer failed: ")
    assert told in poor.fault


@pytest.mark.parametrize("garbage", [None, 7, b"bytes", "x" * (MAX_ACTION_CHARACTERS + 1), "lone \ud800 surrogate"])
def test_garbage_for_text_is_a_fault_and_no_action(make_host: MakeHost, garbage: Any) -> None:
    host, _ = make_host(lambda r: result(garbage if r.prompt == "a1" else "fine"))
    replies = host.act([request("a0"), request("a1"), request("a2")])
    assert [reply.text for reply in replies] == ["fine", "", "fine"]
    assert replies[1].fault is not None
    assert "garbage" in replies[1].fault


def test_an_answer_that_is_no_result_at_all_is_a_fault_of_its_request(make_host: MakeHost) -> None:
    host, _ = make_host(lambda r: None if r.prompt == "a1" else result("fine"))
    replies = host.act([request("a0"), request("a1")])
    assert (replies[0].text, replies[0].fault) == ("fine", None)
    assert replies[1].fault is not None


def test_too_slow_a_model_is_a_fault_and_charged_all_that_it_may_have_used(make_host: MakeHost) -> None:
    def answer(r: GenerationRequest) -> GenerationResult:
        raise TimeoutError

    host, engine = make_host(answer)
    replies = host.act([request("a0"), request("a1")])
    assert [reply.fault for reply in replies] == ["timeout: decoding passed its deadline"] * 2
    assert [reply.tokens for reply in replies] == [len("a0") + 8] * 2
    assert len(engine.batches) == 1  # asking each alone would only take longer


def test_the_model_is_told_when_to_stop(make_host: MakeHost, monkeypatch: pytest.MonkeyPatch) -> None:
    host, engine = make_host(lambda r: result("ok"))
    deadlines: list[float | None] = []
    real = engine.generate
    monkeypatch.setattr(engine, "generate", lambda r, deadline_s=None: deadlines.append(deadline_s) or real(r))
    host.act([request("a0")])
    assert deadlines[0] is not None
    assert 4.0 < deadlines[0] - time.monotonic() <= 5.0


def test_a_retried_call_is_answered_and_not_computed_again(make_host: MakeHost) -> None:
    numbers = iter(range(100))
    host, engine = make_host(lambda r: result(str(next(numbers))))
    first = host.act([request("a0"), request("a1")])
    assert host.act([request("a1"), request("a0")]) == [first[1], first[0]]
    assert len(engine.batches) == 1
    mixed = host.act([request("a0"), request("a2")])  # a host that takes over part of another's agents
    assert mixed[0] == first[0]
    assert engine.batches[1:] == [["a2"]]


def test_a_fault_is_remembered_too_so_that_a_retry_changes_nothing(make_host: MakeHost) -> None:
    answers = iter([RuntimeError("once"), result("later")])

    def answer(r: GenerationRequest) -> GenerationResult:
        value = next(answers)
        if isinstance(value, Exception):
            raise value
        return value

    host, _ = make_host(answer)
    first = host.act([request("a0")])
    assert first[0].fault
    assert host.act([request("a0")]) == first


def test_replies_of_earlier_ticks_are_forgotten(make_host: MakeHost) -> None:
    host, engine = make_host(lambda r: result("ok"))
    for tick in range(50):
        host.act([request("a0", tick=tick)])
    assert len(host._answered) == 1
    host.act([request("a0", tick=0)])
    assert len(engine.batches) == 51


def test_seed_follows_from_the_key_and_settings_from_the_config(make_host: MakeHost) -> None:
    host, engine = make_host(lambda r: result("ok"))
    host.act([request("a0"), request("a1"), request("a0", tick=1)])
    assert len({r.seed for r in engine.requests}) == 3
    again, other_engine = make_host(lambda r: result("ok"))
    again.act([request("a0", "another prompt, other company", tick=1)])
    assert other_engine.requests[0].seed == engine.requests[2].seed
    assert {(r.temperature, r.max_new_tokens, r.stop) for r in engine.requests} == {(0.3, 8, ("\n",))}


# ---- echo, coordinators, tokens, the real engine


def test_echo_answers_with_the_last_line_cut_to_its_limit() -> None:
    host = Host(spec("echo"), {})
    replies = host.act([ActRequest((0, 0, "a0"), "first\nabcdefghij\n", 4), ActRequest((0, 0, "a1"), "x", 4)])
    assert [reply.text for reply in replies] == ["abcd", "x"]
    assert replies[0] == ActReply((0, 0, "a0"), "abcd", len("first\nabcdefghij\n"), 4)


def test_without_a_model_a_token_is_a_byte() -> None:
    assert Host(spec("echo"), {}).count_tokens(["", "abc", "µLM"]) == [0, 3, 4]
    assert TokenCounter(spec("echo")).count_tokens([]) == []


def test_with_a_model_tokens_are_the_models() -> None:
    tokenizer = Tokenizer.train(["half target made"] * 9, 300)
    counter = TokenCounter(spec("echo", tokenizer=tokenizer.to_json()))
    texts = ["half 13 target 145", "", "µLM"]
    assert counter.count_tokens(texts) == [len(tokenizer.encode(text)) for text in texts]
    assert counter.count_tokens(texts)[0] < len(texts[0])
    assert counter.count_tokens([]) == []


def direct_request(tick: int) -> DirectRequest:
    return DirectRequest("goal", ("a0",), seed=tick, key=(0, tick, "coordinator"))


def test_without_a_coordinator_nobody_is_directed() -> None:
    assert Host(spec("echo"), {}).direct([direct_request(1)]) == [DirectReply((0, 1, "coordinator"))]


def test_a_coordinator_that_raises_is_a_fault_of_the_episode_that_caused_it() -> None:
    class Mind:
        def direct(self, requests: Sequence[DirectRequest]) -> list[DirectReply]:
            if any(r.key[1] == 2 for r in requests):
                raise KeyError("boom")
            return [DirectReply(r.key, {"a0": "go"}) for r in requests]

    host = Host(spec("echo"), {})
    host._coordinator = Mind()  # type: ignore[assignment]
    replies = host.direct([direct_request(tick) for tick in (1, 2, 3)])
    assert [reply.directives for reply in replies] == [{"a0": "go"}, {}, {"a0": "go"}]
    assert replies[1].fault is not None
    assert "coordinator raised KeyError" in replies[1].fault


def test_a_real_model_gives_an_agent_the_same_action_in_any_company(tiny_policy: Path) -> None:
    models = {"somewhere": shared(tiny_policy)}
    requests = [request(f"a{i}", f"half 1 2 3 target {100 + i}\n") for i in range(7)]
    together = Host(spec(threads_per_host=1), models).act(requests)
    assert len({reply.text for reply in together}) > 1
    assert [Host(spec(threads_per_host=1), models).act([r])[0] for r in requests[:3]] == together[:3]


def test_chats_of_agents_tell_the_engine_their_opening(tiny_policy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chat = ChatFormat("{% for m in messages %}{{ m.role }}:\n{{ m.content }}\n{% endfor %}", (), {})
    host = Host(spec(threads_per_host=1, system="one of many", chat=chat), {"somewhere": shared(tiny_policy)})
    seen: list[GenerationRequest] = []
    real_generate = Engine.generate

    def generate(self: Engine, requests: Sequence[GenerationRequest], deadline_s: float | None = None) -> Any:
        seen.extend(requests)
        return real_generate(self, requests, deadline_s)

    monkeypatch.setattr(Engine, "generate", generate)
    asked = [request(f"a{i}", f"{i} half") for i in range(3)]
    together = host.act(asked)
    assert len({asked.prompt[: asked.opening] for asked in seen}) == 1
    opening = seen[0].prompt[: seen[0].opening]
    tokenizer = Tokenizer.from_json((tiny_policy / "tokenizer.json").read_text())
    assert tokenizer.decode(list(opening)).startswith("system:\none of many\nuser:")
    assert [reply.fault for reply in together] == [None] * 3


def chatting(monkeypatch: pytest.MonkeyPatch, text: str, keep: bool = False) -> ActReply:
    """Return the reply of an agent whose model answers a chat with a text."""
    monkeypatch.setattr(Host, "_engine", lambda self, path, parts: FakeEngine(lambda r: result(text)))
    one = spec(system="one of many", chat=ChatFormat("{{ messages[-1].content }}", (), {}))
    one = dataclasses.replace(one, config=one.config.model_copy(update={"keep_thoughts": keep}))
    return Host(one, {"somewhere": SharedModel({}, "", 0, 1, {})}).act([request("a0")])[0]


@pytest.mark.parametrize(
    "text",
    [
        "<think>\nwhat now?\n</think>\n\n1+1\nThat is it.",
        "well\n</think>1+1",
        "```\n1+1\n```",
        "```python\n1+1\n```",
        "\ufeff`1+1`",
    ],
)
def test_the_action_is_what_an_answer_says_beside_thoughts_and_code_marks(
    monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    """Failed at e48e5b3: `<think>...</think>1+1` gave the action `<think>`, a block of code its first mark."""
    reply = chatting(monkeypatch, text)
    assert (reply.text, reply.fault, reply.tokens, reply.thoughts) == ("1+1", None, 5, "")


@pytest.mark.parametrize("text", ["", "\n", "<think>what now?", "<think>a</think>", "```\n```"])
def test_an_answer_without_an_action_is_a_fault(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """Failed at e48e5b3: it was the empty action, or a mark."""
    reply = chatting(monkeypatch, text)
    assert (reply.text, reply.tokens, bool(reply.fault)) == ("", 5, True)


def test_thoughts_reach_the_record_where_they_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    assert chatting(monkeypatch, "<think>hm</think>1+1", keep=True).thoughts == "hm"
    assert chatting(monkeypatch, "<think>hm", keep=True).thoughts == "hm"


def test_a_pattern_that_no_token_fits_is_a_fault_of_its_request_alone(tiny_policy: Path) -> None:
    agents = AgentsConfig(engine=UlmEngine(model="somewhere"), constrained=True)
    host = Host(host_spec(agents, threads_per_host=1), {"somewhere": shared(tiny_policy)})
    good = ActRequest((0, 0, "a0"), "half 1 2 3\n", 8, "[0-9]{1,3}")
    broken = ActRequest((0, 0, "a1"), "half 1 2 3\n", 8, "[0-9")
    replies = host.act([good, broken])
    assert replies[0].text.isdigit()
    assert replies[1].fault is not None
    json.dumps(replies[1].fault)


def test_a_gpu_that_is_not_there_is_one_clear_line(tiny_policy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(SwarmError, match="set device: cpu"):
        Host(spec(device="cuda"), {"somewhere": shared(tiny_policy)})


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")])
def test_full_memory_is_no_fault_of_a_call(make_host: MakeHost, error: Exception) -> None:
    """Failed at a7f87d3: "model raised MemoryError" was booked as a fault of every agent, until the run ended."""

    def full(r: GenerationRequest) -> GenerationResult:
        raise error

    host, engine = make_host(full)
    with pytest.raises(SwarmError, match=r"^the model ran out of memory: lower runtime.agents_per_host"):
        host.act([request("a"), request("b")])
    assert engine.batches == [["a", "b"], ["a"]]  # a smaller batch may still fit


def test_full_memory_while_models_are_loaded_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Failed at a7f87d3: in the local pool "this is a bug", exit 70."""

    def full(self: Host, path: str, parts: frozenset[str]) -> Any:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")

    monkeypatch.setattr(Host, "_engine", full)
    with pytest.raises(SwarmError, match=r"^loading the models ran out of memory: lower"):
        Host(spec(), {"somewhere": SharedModel({}, "", 0, 1, {})})
