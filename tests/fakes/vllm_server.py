"""vLLM's server on a CPU, for as long as a test or a benchmark needs it."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2

START_S = 300.0


@contextlib.contextmanager
def serving(folder: str, name: str, key: str, at_once: int = 16) -> Iterator[str]:
    """Serve a model in float32 and yield the endpoint's address.

    Args:
        folder: of the model.
        name: by which it is asked for.
        key: that it wants.
        at_once: requests that it computes together.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {
        "VLLM_API_KEY": key,
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "OMP_NUM_THREADS": "2",
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
    }
    options = ["--dtype", "float32", "--enforce-eager", "--max-model-len", "1024", "--max-num-seqs", str(at_once)]
    options += ["--no-enable-chunked-prefill"]  # vLLM 0.32 on CPUs dies of half a prompt that samples with a seed
    options += ["--block-size", "32"]  # as our engine has it: prompts share their beginnings
    # The program `vllm` of vllm-cpu 0.32.0 asks for the version of a package `vllm` and ends; `serve` starts this.
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", folder, *options]
    command += ["--served-model-name", name, "--host", "127.0.0.1", "--port", str(port)]
    with tempfile.TemporaryDirectory() as place:
        log = Path(place) / "log"
        with log.open("w") as file:
            server = subprocess.Popen(command, env=environment, stdout=file, stderr=file, start_new_session=True)
        try:
            deadline = time.monotonic() + START_S
            while not _answers(f"http://127.0.0.1:{port}/health"):
                assert server.poll() is None, log.read_text()[-2000:]
                assert time.monotonic() < deadline, log.read_text()[-2000:]
                time.sleep(0.5)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            if server.poll() is None:
                os.killpg(server.pid, 15)
                server.wait(30)


def _answers(address: str) -> bool:
    try:
        return httpx2.get(address, timeout=2).status_code == 200
    except httpx2.TransportError:
        return False
