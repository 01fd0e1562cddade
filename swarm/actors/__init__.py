"""Ray lives here (and in `swarm.train.policy`): host actors and the pool that keeps them alive."""

import os

# Ray reads these when it is imported. It would print a paragraph into the dashboard for every host that dies; the pool
# records host deaths itself, and dashboard and telemetry show them.
os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", "A worker died or was killed while executing a task")

# Under `uv run` it would send the whole working folder to its workers, and have uv make each of them an environment.
os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
