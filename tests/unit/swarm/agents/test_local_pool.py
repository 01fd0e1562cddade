"""The local pool's time limit: a model that never returns costs a fault, not the run."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any

import pytest
from fakes.hosts import host_spec

from swarm.agents.local_pool import LocalPool
from swarm.config.engine import EchoEngine
from swarm.config.experiment import AgentsConfig
from swarm.messages import ActReply, ActRequest, DirectReply, DirectRequest

SPEC = host_spec(AgentsConfig(engine=EchoEngine()), timeout_s=-0.95)
"""The pool adds a second to a host's own limit; these tests wait .05 s in all."""


class HangingHost:
    """Hangs on the prompt "hang" until it is released, and answers everything else."""

    def __init__(self) -> None:
        self.release = threading.Event()
        self.threads: set[int] = set()

    def act(self, requests: Sequence[ActRequest]) -> list[ActReply]:
        self.threads.add(threading.get_ident())
        if any(request.prompt == "hang" for request in requests):
            self.release.wait(20)
        if any(request.prompt == "raise" for request in requests):
            raise RuntimeError("a bug of the host itself")
        return [ActReply(request.key, request.prompt, 1, 1) for request in requests]

    def direct(self, requests: Sequence[DirectRequest]) -> list[DirectReply]:
        self.release.wait(20)
        return []

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        return [7 for _ in texts]

    count_prompts = count_tokens


@pytest.fixture
def host() -> Any:
    host = HangingHost()
    yield host
    host.release.set()


def request(agent: str, prompt: str, tick: int = 0) -> ActRequest:
    return ActRequest((0, tick, agent), prompt, 8)


def test_a_call_that_hangs_becomes_a_fault_of_each_request_in_it(host: HangingHost) -> None:
    pool = LocalPool(SPEC, {}, host)  # type: ignore[arg-type]
    replies = pool.act([request("a0", "hang"), request("a1", "fine")])
    assert [reply.key[2] for reply in replies] == ["a0", "a1"]
    assert all(reply.fault and reply.fault.startswith("timeout: no answer within") for reply in replies)
    pool.close()


def test_the_pool_answers_again_after_a_hang(host: HangingHost) -> None:
    pool = LocalPool(SPEC, {}, host)  # type: ignore[arg-type]
    pool.act([request("a0", "hang")])
    assert pool.act([request("a0", "fine", tick=1)]) == [ActReply((0, 1, "a0"), "fine", 1, 1)]
    pool.close()


def test_a_late_answer_is_not_taken_for_the_next_call(host: HangingHost) -> None:
    pool = LocalPool(SPEC, {}, host)  # type: ignore[arg-type]
    pool.act([request("a0", "hang")])
    host.release.set()
    time.sleep(0.05)
    assert pool.act([request("a1", "mine", tick=1)])[0].text == "mine"
    pool.close()


def test_a_coordinator_that_hangs_becomes_a_fault(host: HangingHost) -> None:
    pool = LocalPool(SPEC, {}, host)  # type: ignore[arg-type]
    reply = pool.direct([DirectRequest("goal", (), key=(0, 1, "coordinator"))])[0]
    assert reply.key == (0, 1, "coordinator")
    assert reply.fault is not None
    assert "timeout" in reply.fault
    pool.close()


def test_all_calls_share_one_thread_because_torch_keeps_a_team_per_thread(host: HangingHost) -> None:
    pool = LocalPool(SPEC, {}, host)  # type: ignore[arg-type]
    for tick in range(5):
        pool.act([request("a0", "fine", tick)])
    assert len(host.threads) == 1
    assert host.threads != {threading.get_ident()}
    pool.close()


def test_a_bug_of_the_host_is_raised_where_it_was_called(host: HangingHost) -> None:
    pool = LocalPool(SPEC, {}, host)  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="a bug of the host itself"):
        pool.act([request("a0", "raise")])
    assert pool.act([request("a0", "fine")])[0].text == "fine"
    pool.close()


def test_closing_twice_is_harmless_and_ends_the_thread(host: HangingHost) -> None:
    before = set(threading.enumerate())  # of other tests, and they may end meanwhile
    pool = LocalPool(SPEC, {}, host)  # type: ignore[arg-type]
    pool.act([request("a0", "fine")])
    (own,) = set(threading.enumerate()) - before
    pool.close()
    pool.close()
    own.join(5)
    assert not own.is_alive()


def test_tokens_are_counted_by_the_host(host: HangingHost) -> None:
    pool = LocalPool(SPEC, {}, host)  # type: ignore[arg-type]
    assert pool.count_tokens(["a", "b"]) == [7, 7]
    pool.close()


def test_without_a_host_of_its_own_the_pool_builds_one() -> None:
    pool = LocalPool(SPEC, {})
    assert pool.act([request("a0", "abc\n")])[0].text == "abc"
    pool.close()


SCRIPT = """
import time
from fakes.hosts import host_spec
from swarm.config.engine import EchoEngine
from swarm.config.experiment import AgentsConfig
from swarm.messages import ActRequest
from swarm.agents.local_pool import LocalPool

class Host:
    count_tokens = count_prompts = None

    def act(self, requests):
        time.sleep(3600)

spec = host_spec(AgentsConfig(engine=EchoEngine()), timeout_s=-0.95)
pool = LocalPool(spec, {}, Host())
print(pool.act([ActRequest((0, 0, "a0"), "x", 1)])[0].fault)
pool.close()
"""


@pytest.mark.process
def test_a_call_that_never_returns_does_not_keep_the_process_alive() -> None:
    path = os.pathsep.join(sys.path)  # with the fakes
    environ = {**os.environ, "PYTHONPATH": path}
    command = [sys.executable, "-c", SCRIPT]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True, env=environ)
    assert "timeout" in done.stdout
