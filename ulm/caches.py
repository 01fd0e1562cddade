"""Where caches go: the user's cache folder, or one in the temp folder where there is no home that can be written.

Containers run as users without HOME and without an entry in /etc/passwd, or with a home that is read-only.
"""

import os
import tempfile
from contextlib import suppress
from pathlib import Path


def cache_folder() -> Path:
    """Return where fetched models are: $ULM_SWARM_CACHE, or ulm-swarm in the user's cache folder.

    Raises:
        OSError: there is no home, and the temp folder gives no folder of our own.
    """
    return Path(os.environ.get("ULM_SWARM_CACHE") or user_caches() / "ulm-swarm")


def user_caches() -> Path:
    """Return $XDG_CACHE_HOME or ~/.cache, or what stands for it; errors as in `cache_folder`."""
    with suppress(RuntimeError):  # neither HOME nor an entry in /etc/passwd
        if _is_writable(folder := _usual()):
            return folder
    return _temporary()


def is_temporary() -> bool:
    """Return whether caches are in the temp folder, for want of a home; errors as in `cache_folder`."""
    return user_caches() == _temporary_place()


def settle_caches() -> None:
    """Let other packages, and processes that are started from here, keep their caches where ours are.

    What a folder that cannot be written holds of models is still read there.
    """
    with suppress(OSError):  # told by whoever needs a cache
        if not is_temporary():
            return
        folder = user_caches()
        with suppress(RuntimeError):
            for variable, name in (("HF_HOME", "huggingface"), ("ULM_SWARM_CACHE", "ulm-swarm")):
                if os.access(kept := _usual() / name, os.R_OK | os.X_OK):
                    os.environ.setdefault(variable, str(kept))
        os.environ["XDG_CACHE_HOME"] = str(folder)
        os.environ.setdefault("XDG_CONFIG_HOME", str(folder))
        if not os.access(os.environ.get("HOME") or os.devnull, os.X_OK):
            os.environ["HOME"] = str(folder)


def _usual() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")


def _is_writable(folder: Path) -> bool:
    """Return whether files can be written in a folder, or it can be made."""
    there = next(place for place in (folder, *folder.absolute().parents) if os.access(place, os.F_OK))
    return os.access(there, os.W_OK | os.X_OK)


def _temporary_place() -> Path:
    return Path(tempfile.gettempdir()) / f"ulm-swarm-{os.getuid()}"


def _temporary() -> Path:
    folder = _temporary_place()
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.is_symlink() or folder.stat().st_uid != os.getuid():  # models of somebody else are not for us
        raise PermissionError(f"{folder} belongs to another user; set HOME, or ULM_SWARM_CACHE")
    return folder
