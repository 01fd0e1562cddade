"""Ray lives here (and in `swarm.train.policy`): host actors and the pool that keeps them alive."""

import os

# Ray reads this when it is imported. It would print a paragraph into the dashboard for every host that dies; the pool
# records host deaths itself, and dashboard and telemetry show them.
os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", "A worker died or was killed while executing a task")
