from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fakes.character_tokenizer import characters
from safetensors.torch import load_file, save_file

from ulm.checkpoint import (
    CheckpointError,
    build_model,
    checkpoint_hash,
    load_checkpoint,
    load_weights_numpy,
    read_checkpoint_config,
    save_checkpoint,
)
from ulm.config import ModelConfig
from ulm.model import Decoder, KVCache
from ulm.tokenizer import Tokenizer

pytestmark = pytest.mark.usefixtures("one_thread")

IDS = torch.arange(12)[None] + 60


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.bytes()


def make_model(seed: int = 1, **changes: Any) -> Decoder:
    fields = {
        "vocab_size": 259,
        "n_layer": 2,
        "n_head": 2,
        "n_kv_head": 1,
        "d_model": 16,
        "d_ff": 24,
        "window": 8,
    }
    return Decoder(ModelConfig(**{**fields, **changes}), seed=seed).eval()


@pytest.fixture
def saved(tmp_path: Path, tokenizer: Tokenizer) -> Path:
    save_checkpoint(tmp_path / "agent", make_model(), tokenizer, {"seed": 7, "scores": {"solved": 0.7}})
    return tmp_path / "agent"


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def edit_config(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = folder / "config.json"
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


def reseal(folder: Path) -> None:
    """Make the checksum fit altered weights, so that the checks behind it are reached."""
    import hashlib

    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    edit_config(folder, lambda data: data["sha256"].update({"model.safetensors": digest}))


@pytest.mark.parametrize("tied", [True, False])
def test_loaded_model_gives_the_same_logits(tmp_path: Path, tokenizer: Tokenizer, tied: bool) -> None:
    model = make_model(tie_embeddings=tied)
    save_checkpoint(tmp_path / "a", model, tokenizer, {"seed": 7})
    loaded = load_checkpoint(tmp_path / "a")
    assert torch.equal(loaded.model(IDS), model(IDS))
    assert loaded.config == model.config
    assert loaded.meta == {"seed": 7}
    assert loaded.tokenizer.encode("half 3 11 é") == tokenizer.encode("half 3 11 é")
    assert not loaded.model.training
    assert all(p.requires_grad for p in loaded.model.parameters())


@pytest.mark.process
def test_loads_in_another_process_without_transformers(saved: Path) -> None:
    script = (
        "import sys, torch; from pathlib import Path; from ulm.checkpoint import load_checkpoint\n"
        "torch.set_num_threads(1)\n"  # as here: products of so narrow a model differ by it on some CPUs
        "model = load_checkpoint(Path(sys.argv[1])).model\n"
        "assert 'transformers' not in sys.modules\n"
        "print(model(torch.arange(12)[None] + 60).double().sum().item())"
    )
    done = subprocess.run([sys.executable, "-c", script, str(saved)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) == pytest.approx(make_model()(IDS).double().sum().item(), abs=1e-9)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_on_disk_halves_the_file_and_rounds(
    tmp_path: Path, tokenizer: Tokenizer, dtype: torch.dtype
) -> None:
    model = make_model()
    save_checkpoint(tmp_path / "whole", model, tokenizer, {})
    save_checkpoint(tmp_path / "half", model, tokenizer, {}, dtype)
    whole, half = ((tmp_path / name / "model.safetensors").stat().st_size for name in ("whole", "half"))
    assert half < 0.6 * whole
    loaded = load_checkpoint(tmp_path / "half").model
    assert loaded.dtype == torch.float32
    assert torch.equal(loaded.embed.weight, model.embed.weight.to(dtype).float())


def test_rotary_angles_stay_exact_in_a_half_precision_model(saved: Path) -> None:
    model = load_checkpoint(saved, dtype=torch.bfloat16).model
    assert model.dtype == torch.bfloat16
    far = torch.tensor([[1001]])
    for exact, rounded in zip(make_model().rope(far), model.rope(far), strict=True):
        assert torch.equal(exact.to(torch.bfloat16), rounded)


def test_special_ids_of_the_tokenizer_survive(tmp_path: Path, tokenizer: Tokenizer) -> None:
    save_checkpoint(tmp_path / "a", make_model(), Tokenizer(tokenizer.inner, pad_id=5, eot_id=9), {})
    loaded = load_checkpoint(tmp_path / "a").tokenizer
    assert (loaded.pad_id, loaded.eot_id) == (5, 9)


def test_config_is_read_without_the_weights(saved: Path) -> None:
    (saved / "model.safetensors").unlink()
    config = read_checkpoint_config(saved)
    assert config.model == make_model().config
    assert config.num_parameters == make_model().num_parameters()
    assert config.meta["scores"] == {"solved": 0.7}


def test_folder_holds_three_files_and_nothing_is_left_beside_it(saved: Path) -> None:
    assert names(saved) == ["config.json", "model.safetensors", "tokenizer.json"]
    assert names(saved.parent) == ["agent"]


def test_same_model_saved_twice_is_the_same_bytes(tmp_path: Path, tokenizer: Tokenizer) -> None:
    for name in ("a", "b"):
        save_checkpoint(tmp_path / name, make_model(), tokenizer, {"z": 1, "a": 2})
    for file in names(tmp_path / "a"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_hash_ignores_meta_and_sees_weights_shape_and_tokenizer(tmp_path: Path, tokenizer: Tokenizer) -> None:
    def digest(model: Decoder, tokens: Tokenizer, meta: dict[str, Any]) -> str:
        save_checkpoint(tmp_path / "x", model, tokens, meta)
        return checkpoint_hash(tmp_path / "x")

    first = digest(make_model(), tokenizer, {"seed": 1})
    assert digest(make_model(), tokenizer, {"seed": 2}) == first
    others = {
        digest(make_model(seed=2), tokenizer, {"seed": 1}),
        digest(make_model(window=9), tokenizer, {"seed": 1}),
        digest(make_model(), characters("abc"), {"seed": 1}),
        digest(make_model(), Tokenizer(tokenizer.inner, eot_id=2), {"seed": 1}),
    }
    assert len(others | {first}) == 5


# Replacing


def test_replacing_leaves_the_new_one_alone(saved: Path, tokenizer: Tokenizer) -> None:
    save_checkpoint(saved, make_model(seed=2), tokenizer, {"seed": 8})
    assert load_checkpoint(saved).meta == {"seed": 8}
    assert torch.equal(load_checkpoint(saved).model(IDS), make_model(seed=2)(IDS))
    assert names(saved.parent) == ["agent"]


def test_replacing_through_a_link_keeps_the_link(saved: Path, tokenizer: Tokenizer) -> None:
    link = saved.parent / "latest"
    link.symlink_to(saved)
    save_checkpoint(link, make_model(seed=2), tokenizer, {"seed": 8})
    assert link.is_symlink()
    assert load_checkpoint(saved).meta == {"seed": 8}
    assert names(saved.parent) == ["agent", "latest"]


@pytest.mark.process
@pytest.mark.parametrize("fatal_call", [4, 7, 11, *range(13, 20), 22, 99])
def test_a_writer_killed_anywhere_leaves_the_old_or_the_new_one(
    saved: Path, tokenizer: Tokenizer, fatal_call: int
) -> None:
    """Fork, and let the child die at its n-th change of the file system."""
    events = {"os.rename", "os.mkdir", "os.rmdir", "os.remove", "open", "shutil.rmtree"}
    model, meta = make_model(seed=2), {"seed": 8}
    child = os.fork()
    if child == 0:
        seen = 0

        def die(event: str, arguments: tuple[Any, ...]) -> None:
            nonlocal seen
            seen += event in events
            if seen == fatal_call:
                os._exit(9)

        sys.addaudithook(die)
        try:
            save_checkpoint(saved, model, tokenizer, meta)
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    loaded = load_checkpoint(saved)
    assert loaded.meta["seed"] in (7, 8)
    assert torch.equal(loaded.model(IDS), make_model(seed={7: 1, 8: 2}[loaded.meta["seed"]])(IDS))
    if os.waitstatus_to_exitcode(status) == 0:
        assert loaded.meta == meta
    save_checkpoint(saved, model, tokenizer, meta)  # the next writer clears what was left
    assert load_checkpoint(saved).meta == meta
    assert names(saved.parent) == ["agent"]


def test_failed_write_keeps_the_old_one_and_says_why(
    saved: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CheckpointError, match="No space left on device"):
        save_checkpoint(saved, make_model(seed=2), tokenizer, {})
    assert load_checkpoint(saved).meta["seed"] == 7
    assert names(saved.parent) == ["agent"]


def test_meta_that_is_no_json_is_refused_before_anything_is_replaced(saved: Path, tokenizer: Tokenizer) -> None:
    for bad in ({"model": object()}, {"loss": float("nan")}):
        with pytest.raises(CheckpointError, match="meta is not JSON"):
            save_checkpoint(saved, make_model(), tokenizer, bad)
    assert load_checkpoint(saved).meta["seed"] == 7
    assert names(saved.parent) == ["agent"]


def test_tokenizer_larger_than_the_model_is_refused(tmp_path: Path, tokenizer: Tokenizer) -> None:
    with pytest.raises(CheckpointError, match="259 tokens and the model 100"):
        save_checkpoint(tmp_path / "a", make_model(vocab_size=100), tokenizer, {})


def test_a_file_in_the_way_is_kept(tmp_path: Path, tokenizer: Tokenizer) -> None:
    (tmp_path / "a").write_text("precious")
    with pytest.raises(CheckpointError, match="a file is in the way"):
        save_checkpoint(tmp_path / "a", make_model(), tokenizer, {})
    assert (tmp_path / "a").read_text() == "precious"


# Damage


def refuses(folder: Path, words: str) -> None:
    for read in (load_checkpoint, load_weights_numpy):
        with pytest.raises(CheckpointError, match=words) as caught:
            read(folder)
        assert "\n" not in str(caught.value)


def test_missing_folder_is_named(tmp_path: Path) -> None:
    refuses(tmp_path / "nowhere", r"no checkpoint at .*nowhere; give a folder")


def test_a_file_instead_of_a_folder_is_named(saved: Path) -> None:
    refuses(saved / "model.safetensors", "is a file; give the folder")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_missing_file_is_named(saved: Path, name: str) -> None:
    (saved / name).unlink()
    refuses(saved, rf"{name} is missing")


def test_missing_tokenizer_is_named(saved: Path) -> None:
    (saved / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match=r"tokenizer\.json is missing"):
        load_checkpoint(saved)


@pytest.mark.parametrize("kept", [0, 5, 100, -1])
def test_truncated_weights_are_called_truncated(saved: Path, kept: int) -> None:
    path = saved / "model.safetensors"
    path.write_bytes(path.read_bytes()[:kept])
    refuses(saved, r"model\.safetensors is truncated or no safetensors")


def test_a_flipped_bit_is_seen(saved: Path) -> None:
    path = saved / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(bytes(data))
    refuses(saved, r"model\.safetensors was altered")
    with pytest.raises(CheckpointError, match="was altered"):
        checkpoint_hash(saved)


def test_an_altered_tokenizer_is_seen(saved: Path) -> None:
    with (saved / "tokenizer.json").open("a") as file:
        file.write(" ")
    for read in (load_checkpoint, checkpoint_hash):
        with pytest.raises(CheckpointError, match=r"tokenizer\.json was altered"):
            read(saved)


@pytest.mark.parametrize("text", ["", "{", "[1, 2]", "\x00\xff"])
def test_config_that_is_no_json_object_is_named(saved: Path, text: str) -> None:
    (saved / "config.json").write_text(text, encoding="latin-1")
    refuses(saved, r"config\.json is not")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda d: d.update(format=3), r"format 3, this version reads up to 1; upgrade"),
        (lambda d: d.update(format="1"), "no format version"),
        (lambda d: d.pop("format"), "no format version"),
        (lambda d: d.pop("model"), "lacks the key 'model'"),
        (lambda d: d.update(model=[]), "vocab_size"),
        (lambda d: d["sha256"].pop("model.safetensors"), r"lacks the key 'model\.safetensors'"),
        (lambda d: d["model"].update(depth=3), "unknown keys depth"),
        (lambda d: d["model"].update(n_layer=0), "n_layer must be a whole number"),
        (lambda d: d["model"].update(n_layer=3), "the model config means"),
        (lambda d: d.update(meta=3), r"config\.json"),
    ],
)
def test_bad_config_is_explained(saved: Path, change: Callable[[dict[str, Any]], object], words: str) -> None:
    edit_config(saved, change)
    refuses(saved, words)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.pop("norm"), "another model config: .* Missing .*norm"),
        (lambda t: t.update(extra=torch.zeros(2)), "another model config: .* Unexpected .*extra"),
        (lambda t: t.update(norm=torch.zeros(3)), r"another model config: .* norm: .*\[3\].*\[16\]"),
    ],
)
def test_weights_of_another_shape_are_explained(
    saved: Path, change: Callable[[dict[str, torch.Tensor]], object], words: str
) -> None:
    tensors = load_file(saved / "model.safetensors")
    change(tensors)
    save_file(tensors, saved / "model.safetensors")
    reseal(saved)
    with pytest.raises(CheckpointError, match=words):
        load_checkpoint(saved)
    with pytest.raises(CheckpointError, match=words):
        build_model(make_model().config, load_weights_numpy(saved))


# Shared weights


def test_built_model_aliases_the_arrays_and_warns_of_nothing(saved: Path) -> None:
    arrays = load_weights_numpy(saved)
    for array in arrays.values():
        array.setflags(write=False)  # as in Ray's object store
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        models = [build_model(make_model().config, arrays, differentiable=d) for d in (False, True)]
    for model in models:
        for name, parameter in model.named_parameters():
            assert parameter.data_ptr() == arrays[name].ctypes.data, name
            assert not parameter.requires_grad
        assert not model.training
        assert torch.equal(model(IDS), make_model()(IDS))


def test_built_model_decodes_with_a_cache(saved: Path) -> None:
    model = build_model(make_model().config, load_weights_numpy(saved))
    ids = IDS[:, :8]
    with torch.inference_mode():
        logits, _ = model.extend(ids, KVCache.empty(model.config, 1))
    assert (logits - make_model()(ids)).abs().max() <= 1e-5


def test_writing_to_shared_weights_raises(saved: Path) -> None:
    model = build_model(make_model().config, load_weights_numpy(saved))
    with pytest.raises(RuntimeError, match="inference tensor"):
        model.embed.weight.mul_(2)
    with pytest.raises(RuntimeError, match="inference tensor"), torch.no_grad():
        model.norm.add_(1)


def test_gradients_flow_through_differentiable_shared_weights(saved: Path) -> None:
    model = build_model(make_model().config, load_weights_numpy(saved), differentiable=True)
    adapter = torch.zeros(16, requires_grad=True)
    model.logits(model.embed(IDS) + adapter).sum().backward()
    assert adapter.grad is not None
    assert adapter.grad.abs().max() > 0


def test_an_array_that_needs_a_copy_is_refused(saved: Path) -> None:
    arrays = load_weights_numpy(saved)
    arrays["embed.weight"] = np.asfortranarray(arrays["embed.weight"])
    with pytest.raises(CheckpointError, match=r"embed\.weight: need a C-contiguous float array"):
        build_model(make_model().config, arrays)
