"""What an agent learned, put into its base: a model that stands without the run, and says where it came from.

A checkpoint of ours stays one, with the delta merged into its weights. A pretrained Llama gives an adapter that PEFT
loads; its base is left where it is.
"""

from pathlib import Path
from typing import Any

from swarm.agents.delta import KIND, delta_path
from swarm.agents.ltm_files import MEMORY_FOLDER
from swarm.agents.models import current_hash, names_checkpoint
from swarm.backends.models import find_model
from swarm.config.experiment import ExperimentConfig
from swarm.errors import SwarmError
from swarm.files import path_in
from swarm.learn.undo import held
from swarm.record.folder import base_dir_of, needing_base, read_experiment
from swarm.record.journal import JOURNAL_NAME, read_header, read_records
from ulm.checkpoint import load_checkpoint, save_checkpoint
from ulm.delta import Delta
from ulm.model import Decoder


def export_learned(run_dir: Path, agent: str | None, out: Path, command: str) -> str:
    """Write the model that an agent has now, and return its form: `checkpoint` or `adapter`.

    Args:
        run_dir: the run folder; it may go on, or have ended.
        agent: whose; None where there is only one, or a team.
        out: where to; a checkpoint or an adapter that is there is replaced.
        command: how it was made, for its meta data.

    Raises:
        SwarmError: nothing was learned, the base changed or is not here, or `out` holds something else.
    """
    config, base_dir = read_experiment(run_dir, ExperimentConfig), base_dir_of(run_dir)
    who, version = _chosen(run_dir, agent)
    name: str = getattr(config.agents.engine, "model", "")
    with needing_base(run_dir, base_dir):
        header = read_header(run_dir / JOURNAL_NAME)
        base_sha256 = header["checkpoints"].get(name) if header is not None else None
        if base_sha256 is None or current_hash(name, base_dir) != base_sha256:
            raise SwarmError(
                f"model {name} is not here as it was when the run began; restore it to export what it became"
            )
    about = {
        "base": name,
        "base_sha256": base_sha256,
        "delta": version,
        "agent": who or "team",
        "experiment": config.name,
        "seed": config.seed,
        "command": command,
        **_lineage(run_dir, who),
    }
    try:
        delta = Delta.from_bytes(delta_path(run_dir / MEMORY_FOLDER, version).read_bytes())
        if delta.sha256 != version:
            raise ValueError("it holds another one")
    except (OSError, ValueError) as error:
        raise SwarmError(f"the file of delta {version[:12]} cannot be read: {error}") from error
    try:
        if names_checkpoint(base_dir, name):
            _write_checkpoint(path_in(base_dir, name), delta, out, about)
            return "checkpoint"
        _write_adapter(name, find_model(name, base_dir), delta, out, about)
        return "adapter"
    except ValueError as error:
        raise SwarmError(str(error)) from error


def _chosen(run_dir: Path, agent: str | None) -> tuple[str | None, str]:
    """Return whose delta it is, None for the team's, and its sha256."""
    deltas = held(run_dir)
    having = [who for who, versions in deltas.versions.items() if versions and versions[-1]]
    if not having:
        raise SwarmError(f"agents of {run_dir} have learned nothing, or all of it was undone")
    if agent is None and len(having) > 1:
        raise SwarmError(f"name an agent: {', '.join(map(str, having))}")
    who = having[0] if agent is None else None if None in having else agent
    if who not in having:
        raise SwarmError(f"{agent} has learned nothing; there are: {', '.join(map(str, having))}")
    return who, deltas.of(who)


def _lineage(run_dir: Path, who: str | None) -> dict[str, Any]:
    """Return the accepted changes that led to what an agent has, and the hash of the journal that tells them."""
    steps, last = [], ""
    for record in read_records(run_dir / JOURNAL_NAME):
        last = record["hash"]
        if record["kind"] == "change" and record["memory"] == KIND and record["agent"] == who and record["accepted"]:
            step: dict[str, Any] = {name: record[name] for name in ("cause", "parent", "result")}
            steps.append({"round": record["settings"].get("round"), **step})
    return {"journal": last, "changes": steps}


def _write_checkpoint(folder: Path, delta: Delta, out: Path, about: dict[str, Any]) -> None:
    base = load_checkpoint(folder)
    delta.refuse_other(base.model, about["base_sha256"])
    merged = Decoder(base.config)
    merged.load_state_dict(delta.merged(base.model))
    save_checkpoint(out, merged, base.tokenizer, {**base.meta, "learned": about})


def _write_adapter(name: str, folder: Path, delta: Delta, out: Path, about: dict[str, Any]) -> None:
    from transformers.utils import logging

    from ulm.hf.adapter import save_adapter
    from ulm.hf.llama import from_llama

    logging.disable_progress_bar()
    base, _ = from_llama(folder)
    save_adapter(delta, base, str(folder), out, about)
