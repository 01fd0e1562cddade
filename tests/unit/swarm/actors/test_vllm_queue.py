"""What vLLM's engine is asked at once, what waits, and what becomes of what is late; the engine is a stand-in."""

from __future__ import annotations

import time
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

from swarm.actors.vllm_engine import EngineLoop
from swarm.backends.protocol import TextRequest, TextResult

SOON = 3600.0


class StandIn:
    """Answers a request after so many steps as it may write tokens."""

    def __init__(self) -> None:
        self.left: dict[str, int] = {}
        self.started: list[str] = []
        self.aborted: list[str] = []
        self.most = 0

    def add_request(self, name: str, prompt: dict[str, list[int]], tokens: int, lora_request: Any) -> None:
        if not prompt["prompt_token_ids"]:
            raise ValueError("the prompt is empty\nand more lines")
        self.left[name] = tokens
        self.started.append(name)
        self.most = max(self.most, len(self.left))

    def abort_request(self, names: list[str]) -> None:
        self.aborted += names
        for name in names:
            del self.left[name]

    def step(self) -> list[Any]:
        self.left = {name: tokens - 1 for name, tokens in self.left.items()}
        done = [name for name, tokens in self.left.items() if tokens == 0]
        for name in done:
            del self.left[name]
        answer = SimpleNamespace(text="so", token_ids=[1, 2], finish_reason="stop", stop_reason=None)
        return [
            SimpleNamespace(request_id=name, finished=True, outputs=[answer], prompt_token_ids=[7]) for name in done
        ]


def loop(sampled_batch: int | None = 3) -> tuple[EngineLoop, StandIn]:
    engine = StandIn()
    return EngineLoop(engine, {}, sampled_batch, sampling=lambda request: request.max_new_tokens), engine


def ask(
    loop: EngineLoop, temperature: float, tokens: int = 2, within_s: float = SOON, ids: tuple[int, ...] = (7,)
) -> Future[TextResult]:
    request = TextRequest("?", None, 0, tokens, temperature)
    return loop.ask(list(ids), request, None, time.monotonic() + within_s)


def test_those_that_sample_run_a_few_at_a_time_in_the_order_of_asking() -> None:
    asked, engine = loop()
    answers = [ask(asked, 1.0) for _ in range(8)]
    for _ in range(6):
        asked.turn(wait=False)
    assert engine.most == 3
    assert engine.started == [str(number) for number in range(1, 9)]
    assert [answer.result(0).text for answer in answers] == ["so"] * 8


def test_greedy_requests_run_all_at_once_but_not_beside_many_that_sample() -> None:
    asked, engine = loop()
    greedy = [ask(asked, 0.0) for _ in range(8)]
    asked.turn(wait=False)
    assert engine.most == 8
    last = ask(asked, 1.0)
    asked.turn(wait=False)  # the eight end in this step
    assert len(engine.started) == 8
    asked.turn(wait=False)
    assert len(engine.started) == 9
    behind = [ask(asked, 0.0, tokens=5) for _ in range(5)]
    asked.turn(wait=False)  # the one that samples runs: two may join it
    assert len(engine.started) == 11
    asked.turn(wait=False)  # it has ended: all the others may
    assert len(engine.started) == 14
    for _ in range(5):
        asked.turn(wait=False)
    assert all(answer.done() for answer in (*greedy, last, *behind))


def test_without_a_limit_all_that_sample_run_at_once() -> None:
    asked, engine = loop(None)
    for _ in range(8):
        ask(asked, 1.0)
    asked.turn(wait=False)
    assert engine.most == 8


def test_what_is_late_is_charged_if_the_engine_has_seen_it_and_free_if_it_waited() -> None:
    asked, engine = loop(1)
    running, waiting, later = (
        ask(asked, 1.0, tokens=50, within_s=0.05),
        ask(asked, 1.0, within_s=0.05),
        ask(asked, 1.0),
    )
    asked.turn(wait=False)
    time.sleep(0.06)
    asked.turn(wait=False)
    assert engine.aborted == ["1"]
    assert (running.result(0).prompt_tokens, running.result(0).generated_tokens) == (1, 50)
    assert (waiting.result(0).prompt_tokens, waiting.result(0).generated_tokens) == (0, 0)
    assert "timeout" in (running.result(0).fault or "")
    assert "timeout" in (waiting.result(0).fault or "")
    for _ in range(3):
        asked.turn(wait=False)
    assert later.result(0).text == "so"
    assert engine.started == ["1", "2"]


def test_a_request_that_the_engine_refuses_is_answered_and_the_others_go_on() -> None:
    asked, _ = loop()
    refused, fine = ask(asked, 0.0, ids=()), ask(asked, 0.0)
    asked.turn(wait=False)
    asked.turn(wait=False)
    assert refused.result(0).fault == "vLLM refuses the request: the prompt is empty"
    assert fine.result(0).text == "so"
