"""Learning on Ray: steps are tasks there and children of the local pool here, and what is learned is the same."""

from __future__ import annotations

from pathlib import Path

import pytest
from fakes.learning import learning_config, write_base

from swarm.run.runner import start_run

pytestmark = pytest.mark.ray


def test_agents_learn_the_same_on_two_ray_hosts_as_in_one_process(one_ray: None, tmp_path: Path) -> None:
    base, journals = write_base(tmp_path / "base"), []
    for name, runtime in (("local", {"pool": "local"}), ("ray", {"pool": "ray", "hosts": 2, "standby": 0})):
        config = learning_config(base, count=3, learning={"share": "concat"}, runtime=runtime)
        run_dir = start_run(config, tmp_path / "experiment.yaml", tmp_path / name).run_dir
        journals.append((run_dir / "journal.jsonl").read_bytes())
    assert journals[0] == journals[1]
