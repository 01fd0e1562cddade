"""All that endpoints are known to do, met by agents and coordinators: nothing is lost in silence or charged wrong."""

from __future__ import annotations

from typing import Any

import pytest
from fakes.endpoint import Endpoint, says
from fakes.endpoint_model import at_once
from fakes.endpoint_quirks import DIRECTIVE, QUIRKS
from fakes.toy_run import GuessWorld

from swarm.agents.host import Host, HostSpec, ResolvedModel
from swarm.backends.openai import OpenAIModel
from swarm.backends.prompts import CHAT_MARKS
from swarm.config.experiment import ExperimentConfig
from swarm.errors import Outage
from swarm.messages import ActRequest, DirectRequest
from worlds.protocol import Report

pytestmark = pytest.mark.thorough


def host_at(endpoint: Endpoint, timeout_s: float, **agents: Any) -> Host:
    engine = {"kind": "openai", "model": "tiny", "url": endpoint.url}
    config = ExperimentConfig.model_validate(
        {
            "world": {"id": GuessWorld.id},
            "agents": {"count": 1, "engine": engine, "max_new_tokens": 7, **agents},
            "coordinator": {"kind": "model", "engine": engine, "max_new_tokens": 7},
        }
    )
    models = ResolvedModel(config.agents.engine), ResolvedModel(config.coordinator.engine)
    remote = {
        whose: OpenAIModel("tiny", model.engine, {}, at_once, timeout_s=timeout_s, patience_s=2.0)  # type: ignore[arg-type]
        for whose, model in zip(("agents", "coordinator"), models, strict=True)
    }
    return Host(HostSpec(config, *models, system="Be brief."), {}, remote)


@pytest.mark.parametrize("who", ["agents", "constrained agents", "coordinator"])
@pytest.mark.parametrize("quirk", QUIRKS)
def test_no_quirk_of_an_endpoint_is_a_traceback_a_silent_loss_or_a_wrong_charge(
    endpoint: Endpoint, quirk: str, who: str
) -> None:
    """Failed at e48e5b3 for 88 of the 124 quirks that there were then."""
    wanted = QUIRKS[quirk]
    endpoint.reply = wanted.reply
    host = host_at(endpoint, 0.1 if quirk in ("silence", "slow bytes") else 20.0, constrained=who != "agents")

    def ask(tick: int) -> Any:
        if who == "coordinator":
            reports = (Report(tick, "a0", "here"),)
            return host.direct(
                [DirectRequest(key=(0, tick, "coordinator"), goal="go", agents=("a0",), reports=reports)]
            )[0]
        pattern = r"[\s\S]*" if who == "constrained agents" else None
        return host.act([ActRequest((0, tick, "a0"), "Go on.", 7, pattern)])[0]

    if wanted.means in ("outage", "refused"):
        with pytest.raises(Outage) as caught:
            ask(0)
        assert str(caught.value).isprintable()
        endpoint.reply = says(DIRECTIVE)  # as if nothing had been
        assert (ask(0).prompt_tokens, ask(1).generated_tokens) == (11, 3)
        return
    reply = ask(0)
    said = reply.directives if who == "coordinator" else reply.text
    assert bool(said) != bool(reply.fault)
    if wanted.means == "unusable":
        assert reply.fault
    elif who == "agents":  # others read one line, or directives
        assert said
    if reply.fault:
        assert reply.fault.isprintable()
    most = sum(len(message["content"].encode()) + CHAT_MARKS for message in endpoint.asked[0].payload["messages"])
    prompt, generated = wanted.cost
    assert reply.prompt_tokens == (most if prompt is None else prompt)
    assert reply.generated_tokens == (7 if generated is None else generated)
