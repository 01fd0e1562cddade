"""A process that waits for an endpoint can end at any time."""

from __future__ import annotations

import subprocess
import sys

import pytest
from fakes.endpoint import Endpoint, hangs

SCRIPT = """
import socket, sys, threading, time
from swarm.backends.openai import OpenAIModel
from swarm.backends.protocol import TextRequest
from swarm.config.engine import OpenAIEngine

waits = threading.Event()

def look_up(*args, **kwargs):
    waits.set()
    time.sleep(600)

model = OpenAIModel("tiny", OpenAIEngine(model="tiny", url=sys.argv[1]))
if "localhost" in sys.argv[1]:
    socket.getaddrinfo = look_up
else:
    threading.Timer(0.5, waits.set).start()
threading.Thread(target=model.generate, args=([TextRequest("x")],), daemon=True).start()
waits.wait()
print("waits")
"""


@pytest.mark.parametrize("hanging", ["endpoint", "look-up"])
def test_what_hangs_does_not_keep_the_process_alive(endpoint: Endpoint, hanging: str) -> None:
    endpoint.reply = hangs
    url = endpoint.url.replace("127.0.0.1", "localhost") if hanging == "look-up" else endpoint.url
    done = subprocess.run([sys.executable, "-c", SCRIPT, url], capture_output=True, text=True, timeout=60, check=True)
    assert (done.stdout, done.stderr) == ("waits\n", "")
    assert len(endpoint.asked) == (hanging == "endpoint")
