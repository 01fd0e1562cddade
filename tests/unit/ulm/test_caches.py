"""Caches without a home. These failed at a7f87d3: `Path.home` raised, or a folder that cannot be written was used."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from ulm import caches
from ulm.hf.pretrained import fetched

VARIABLES = ("ULM_SWARM_CACHE", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "HF_HOME", "HOME")


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """No variable names a folder; the temp folder, which is returned, is one of the test."""
    for name in VARIABLES:
        monkeypatch.setenv(name, "x")  # so that it is restored, whatever is set meanwhile
        monkeypatch.delenv(name)
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    return temporary


def nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand for a user id without an entry in /etc/passwd, and without HOME."""

    def home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", home)


def only_read(monkeypatch: pytest.MonkeyPatch, folder: str) -> None:
    """Stand for a user who cannot write there, nor make it; root can everywhere."""
    real, places = os.access, {"/", folder, f"{folder}/.cache"}

    def access(path: object, mode: int) -> bool:
        return not (mode & os.W_OK and str(path) in places) and real(str(path), mode)

    monkeypatch.setattr(os, "access", access)


def test_a_home_that_can_be_written_is_used(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    caches.settle_caches()
    assert caches.cache_folder() == tmp_path / ".cache" / "ulm-swarm"
    assert not caches.is_temporary()
    assert "XDG_CACHE_HOME" not in os.environ


def test_without_a_home_caches_are_in_the_temp_folder(monkeypatch, bare):
    nobody(monkeypatch)
    own = bare / f"ulm-swarm-{os.getuid()}"
    assert caches.cache_folder() == own / "ulm-swarm"
    assert fetched("smollm2-135m") is None
    assert own.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("home", ["/etc/passwd", "/nonexistent", "/proc/self"])
def test_a_home_that_cannot_be_written_is_none(monkeypatch, bare, home):
    real = os.access
    monkeypatch.setattr(
        os, "access", lambda path, mode: real(path, mode) and not (mode & os.W_OK and str(path) != str(bare))
    )
    monkeypatch.setenv("HOME", home)
    assert caches.user_caches().parent == bare


def test_other_packages_and_children_get_the_same_place(monkeypatch, bare):
    nobody(monkeypatch)
    caches.settle_caches()
    own = str(bare / f"ulm-swarm-{os.getuid()}")
    assert [os.environ[name] for name in ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "HOME")] == [own] * 3
    assert caches.is_temporary()
    assert os.path.expanduser("~") == own  # noqa: PTH111 - as packages ask


def test_models_in_a_home_that_is_read_only_are_still_found(monkeypatch, bare, tmp_path):
    kept = tmp_path / "home" / ".cache" / "ulm-swarm" / "models" / "smollm2-135m"
    kept.mkdir(parents=True)
    (kept / "config.json").write_text("{}")
    (tmp_path / "home" / ".cache" / "huggingface").mkdir()
    real = os.access
    monkeypatch.setattr(
        os, "access", lambda path, mode: real(path, mode) and not (mode & os.W_OK and "home" in str(path))
    )
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    caches.settle_caches()
    assert fetched("smollm2-135m") == kept
    assert os.environ["HF_HOME"] == str(tmp_path / "home" / ".cache" / "huggingface")
    assert os.environ["HOME"] == str(tmp_path / "home")


def test_a_folder_that_somebody_else_made_is_refused(monkeypatch, bare, tmp_path):
    nobody(monkeypatch)
    (bare / f"ulm-swarm-{os.getuid()}").symlink_to(tmp_path)
    with pytest.raises(PermissionError, match="belongs to another user; set HOME"):
        caches.cache_folder()
    caches.settle_caches()  # whoever needs no cache goes on
    assert "HOME" not in os.environ
