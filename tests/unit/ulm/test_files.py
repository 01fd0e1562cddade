"""Files and folders of models: whole, readable for whom the umask says, and never in place of something else."""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from ulm.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from ulm.config import preset
from ulm.files import TakenError, whole_folder, write_whole
from ulm.hf import pretrained
from ulm.model import Decoder
from ulm.tokenizer import Tokenizer
from ulm.train.states import RollingStates


@pytest.fixture(autouse=True)
def group_may_write() -> Iterator[None]:
    before = os.umask(0o002)
    yield
    os.umask(before)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train(["a text"], 260)


def modes(folder: Path) -> set[str]:
    return {oct(stat.S_IMODE(path.stat().st_mode)) for path in folder.rglob("*") if path.is_file()}


def checkpoint(tokenizer: Tokenizer) -> Callable[[Path], None]:
    model = Decoder(preset("1m", tokenizer.vocab_size, window=8))
    return lambda folder: save_checkpoint(folder, model, tokenizer, {})


def test_all_files_have_the_mode_that_the_umask_asks_for(tmp_path: Path, tokenizer: Tokenizer) -> None:
    """Failed at a7f87d3: files of safetensors were 0600."""
    write_whole(tmp_path / "weights.safetensors", lambda fresh: save_file({"w": torch.zeros(2)}, fresh))
    checkpoint(tokenizer)(tmp_path / "policy")
    model = nn.Linear(2, 2)
    RollingStates(tmp_path / "states").save(1, model, torch.optim.SGD(model.parameters()), {})
    tokenizer.save(tmp_path / "tokenizer.json")
    with whole_folder(tmp_path / "made") as fresh:
        np.save(fresh / "a.npy", np.zeros(1))
        save_file({"w": torch.zeros(2)}, fresh / "b.safetensors")
    assert modes(tmp_path) == {"0o664"}


@pytest.mark.parametrize("name", ["notes.md", "model.safetensors.bak", "sub/file"])
def test_a_checkpoint_never_takes_the_place_of_something_else(tmp_path: Path, tokenizer: Tokenizer, name: str) -> None:
    """Failed at a7f87d3: `swarm train --out DIR` removed whatever was in DIR."""
    save = checkpoint(tokenizer)
    folder = tmp_path / "mine"
    (folder / name).parent.mkdir(parents=True)
    (folder / name).write_text("mine")
    with pytest.raises(CheckpointError, match=r"is not empty \(it holds .*\); choose another folder"):
        save(folder)
    assert (folder / name).read_text() == "mine"
    (folder / name).unlink()
    save(tmp_path / "policy")
    (tmp_path / "policy" / "notes.md").write_text("mine")
    with pytest.raises(CheckpointError, match=r"notes\.md"):
        save(tmp_path / "policy")
    (tmp_path / "policy" / "notes.md").unlink()
    save(tmp_path / "policy")
    assert load_checkpoint(tmp_path / "policy").config.window == 8
    assert {path.name for path in tmp_path.iterdir()} == {"mine", "policy"}


def test_a_folder_takes_its_name_when_it_is_whole(tmp_path: Path) -> None:
    def fill(folder: Path, *ours: str, fails: bool = False) -> None:
        with whole_folder(folder, ours) as fresh:
            (fresh / "a").write_text("new")
            assert not folder.exists() or {path.name for path in folder.iterdir()} <= {*ours}
            if fails:
                raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        fill(tmp_path / "new" / "deep", fails=True)
    assert list((tmp_path / "new").iterdir()) == []
    empty = tmp_path / "empty"
    empty.mkdir()
    fill(empty)
    with pytest.raises(TakenError):
        fill(empty)
    fill(empty, "a")
    with pytest.raises(OSError, match="No space"):
        fill(empty, "a", fails=True)
    assert [(path.name, path.read_text()) for path in empty.iterdir()] == [("a", "new")]
    (tmp_path / "file").write_text("")
    with pytest.raises(TakenError, match="a file is in the way"):
        fill(tmp_path / "file")


@pytest.mark.process
def test_what_a_killed_writer_left_goes_with_the_next_and_that_of_a_live_one_stays(tmp_path: Path) -> None:
    """Failed at a7f87d3: `NAME.PID.new` stayed for ever."""
    with subprocess.Popen(["sleep", "60"]) as live:
        ended = subprocess.Popen(["true"])
        ended.wait()
        (tmp_path / f".data.{ended.pid}.new").write_text("ha")
        (tmp_path / f".folder.{ended.pid}.new").mkdir()
        for name in (f".data.{live.pid}.new", ".data.json.new", f".data.other.{ended.pid}.new"):
            (tmp_path / name).write_text("stays")
        write_whole(tmp_path / "data", "whole")
        with whole_folder(tmp_path / "folder"):
            pass
        left = {path.name for path in tmp_path.iterdir()}
        live.kill()
    assert left == {"data", "folder", f".data.{live.pid}.new", ".data.json.new", f".data.other.{ended.pid}.new"}


def test_a_new_file_is_made_where_there_are_no_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    write_whole(tmp_path / "a", "1", create=True)
    with pytest.raises(FileExistsError):
        write_whole(tmp_path / "a", "2", create=True)
    assert (tmp_path / "a").read_text() == "1"


def test_a_fetched_model_takes_no_folder_of_something_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Failed at a7f87d3: what was in the way was removed, and a failing disk gave a folder that is not there."""
    monkeypatch.setenv("ULM_SWARM_CACHE", str(tmp_path))
    place = tmp_path / "models" / "m"
    place.mkdir(parents=True)
    (place / "mine.gguf").write_text("mine")
    with pytest.raises(TakenError, match=r"mine\.gguf"):
        pretrained._made("m", lambda folder: (folder / "config.json").write_text("{}"))
    assert (place / "mine.gguf").read_text() == "mine"

    def no_space(folder: Path) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        pretrained._made("other", no_space)
    assert pretrained._made("third", lambda folder: (folder / "config.json").write_text("{}")).is_dir()
    assert modes(tmp_path / "models" / "third") == {"0o664"}
