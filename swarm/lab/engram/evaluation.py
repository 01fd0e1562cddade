"""`swarm eval`: train the learned arms, measure all arms, and write results and plots; one resumable command.

Owns the order, what is done already, and the folder. A measurement is a Ray task with one thread.

    runs/engram-<name>/
      adapters/<arm>/       adapter, recipe.json, metrics.jsonl, states/; trained.json: how the training went
      measured/<what>.json  identity and measurements
      results.json          plots
"""

import shutil
from collections.abc import Callable
from contextlib import ExitStack
from functools import lru_cache
from pathlib import Path
from typing import Any

from swarm.actors.ray_train import METRICS
from swarm.backends.models import find_model
from swarm.config.training import resolve_device
from swarm.errors import SwarmError
from swarm.figures import to_png
from swarm.files import make_folder, path_in, write_whole
from swarm.identity import claim, is_claimed, work_folder
from swarm.lab.engram.config import ARMS, CONTROLS, LEARNED, LEARNED_ARMS, EngramEvalConfig
from swarm.lab.engram.facts import Facts, choose_facts, digest, edit_sets, unanswerable
from swarm.lab.engram.measures import measure
from swarm.lab.engram.plots import plots
from swarm.lab.engram.results import engram_results
from swarm.lab.engram.text_measures import rows_of_text
from swarm.lab.engram.training import practice_rows, train_arm
from swarm.lab.measurements import Measurement, measure_all, write_json
from swarm.train.loop import STATES
from swarm.train.progress import training_shown
from ulm.files import sha256

ALONE = ("speed", "cost")
"""Measurements of time, beside which nothing else may run; they come last."""


def run_evaluation(config: EngramEvalConfig, beside: Path, folder: Path, echo: Callable[[str], None]) -> dict[str, Any]:
    """Train and measure what is missing, write results and plots, and return the results.

    Args:
        config: the evaluation.
        beside: folder of its file; the paths in it are relative to that.
        folder: where everything is written.
        echo: receives progress lines.

    Raises:
        SwarmError: a file is missing, the folder holds something else, or a task failed; what was done before is
            kept.
    """
    resolve_device(config.device)
    facts = checked_facts(config, beside)
    wanted = {
        what: Measurement(
            what,
            folder / "measured" / f"{what.replace(':', '-')}.json",
            _identity(config, beside, facts, what),
            (what, config, beside.resolve(), folder.resolve()),
        )
        for what in measurements(config)
    }
    with work_folder(folder, "eval"):
        trained = _train(config, beside, folder, facts, echo)
        found: dict[str, Any] = {}
        for part in ([what for what in wanted if what not in ALONE], *([what] for what in ALONE if what in wanted)):
            measured = measure_all("measuring", [wanted[w] for w in part], measure, echo, device=config.device)
            found |= zip(part, measured, strict=True)
        results = engram_results(config, facts, found, trained)
        write_json(folder / "results.json", results)
        for name, figure in plots(results).items():
            write_whole(folder / name, to_png(figure))
    return results


def checked_facts(config: EngramEvalConfig, beside: Path) -> Facts:
    """Return the facts, once all that an evaluation needs is known to be there.

    Raises:
        SwarmError: something is missing or does not fit.
    """
    from transformers import AutoConfig, AutoTokenizer

    folder, text, learn = str(find_model(config.model, beside)), config.text, config.learn
    try:
        shape = AutoConfig.from_pretrained(folder).get_text_config(decoder=True)
        tokenizer = AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError, KeyError) as error:
        raise SwarmError(f"model: {folder} holds no model of transformers ({error})") from error
    rows_of_text(config, beside, tokenizer, text.tokens + (text.gate_tokens if learn.categories else 0))
    facts = choose_facts(config, beside)
    if learn.categories:
        if (last := learn.engram_config().layers[-1]) >= shape.num_hidden_layers:
            raise SwarmError(
                f"learn.engram.layers: no block {last}; the model has blocks 0 to {shape.num_hidden_layers - 1}"
            )
        if without := sorted({fact.category for fact in facts.told if not fact.relation}):
            raise SwarmError(
                f"learn.categories: {', '.join(without)} has questions, not keys; it belongs to faq.category"
            )
        one_step = learn.model_copy(update={"optimizer": learn.optimizer.model_copy(update={"steps": 1})})
        practice_rows(one_step, beside, facts.told, config.seed)
        if learn.text and _sha256(path_in(beside, learn.text.file)) == _sha256(path_in(beside, text.file)):
            raise SwarmError("learn.text.file is text.file: what is trained on must not be measured; name another text")
    edit_sets(config, facts)
    if sum(record.kind == "unseen" for record in facts.sets["valid"]) < 20:
        raise SwarmError(
            f"at least 20 questions about keys that were never told are needed to calibrate; raise `unseen` or the "
            f"counts in {config.facts}"
        )
    if config.faq is not None:
        if not any(r.category == config.faq.category and not r.relation for r in facts.sets["test"]):
            raise SwarmError(f"faq.category: {config.faq.category} has no `questions` in {config.facts}")
        if len(unanswerable(config.faq, beside)["calibrate"]) < 20:
            raise SwarmError("faq.calibrate: at least 20 unanswerable questions are needed")
    return facts


def measurements(config: EngramEvalConfig) -> list[str]:
    """Return the names of all measurements: what, then whose, then under which control or at which distance."""
    learned = LEARNED_ARMS if config.learn.categories else ()
    distracted = ("in_context", "window", "exact", *(("engram", "engram_told") if learned else ()))
    first, *others = config.pairs.counts
    return [
        *(("faq",) if config.faq is not None else ()),  # it takes longest
        *(f"ask:{arm}:{control}" for arm in ARMS if learned for control in ("none", *CONTROLS.get(arm, ()))),
        *(f"change:{arm}" for arm in ("exact", *learned)),
        *(f"pairs:{first}:{control}" for control in ("none", "shuffled", "capacity_1")),
        *(f"pairs:{count}:none" for count in others),
        "edits:exact:0",
        *(f"edits:hybrid:{draw}" for draw in range(config.edits.draws)),
        *(f"distraction:{arm}:{distance}" for arm in distracted for distance in config.distraction.distances),
        *(("gated:engram", "gated:lora_engram", "gates") if learned else ()),
        *(ALONE if config.cost.tokens else ()),
    ]


def _identity(config: EngramEvalConfig, beside: Path, facts: Facts, what: str) -> dict[str, Any]:
    """Return what decides a measurement."""
    name, *rest = what.split(":")
    found: dict[str, Any] = {
        "what": what,
        "model": _model_digest(config, beside),
        "device": config.device,
        "seed": config.seed,
        "max_new_tokens": config.max_new_tokens,
        "facts": digest([*facts.told, *facts.asked, *facts.fitting]),
    }
    if name in ("change", "distraction", "gates", "pairs", "gated", *ALONE):
        found["text"] = config.text.model_dump(mode="json", exclude=set() if name == "gated" else {"gate_tokens"})
        found["text_sha256"] = _sha256(path_in(beside, config.text.file))
    if name in ("pairs", "edits", "distraction", *ALONE):
        section = "pairs" if name in ALONE else name
        found[section] = getattr(config, section).model_dump(mode="json", exclude={"draws"})
    if name == "faq" and config.faq is not None:
        found |= {
            "faq": config.faq.model_dump(mode="json"),
            "strange": _sha256(path_in(beside, config.faq.unanswerable)),
        }
    if name in ("edits", "faq") or what.startswith("ask:hybrid"):
        found["sets"] = digest([record for records in facts.sets.values() for record in records])
    if name == "ask" and rest[0] == "hybrid":
        found["abstain"] = config.edits.abstain
    if name in ALONE:
        found |= {"cost": config.cost.model_dump(mode="json"), "tables": config.learn.engram_config().to_dict()}
    arms = {"gates": ["engram"], "speed": LEARNED_ARMS if config.learn.categories else ()}.get(name, rest[:1])
    control = "_capacity_1" if name == "ask" and rest[1] == "capacity_1" else ""
    trained = [arm.removesuffix("_told") + control for arm in arms]
    found["trained"] = [training_identity(config, beside, facts, arm) for arm in trained if arm in LEARNED]
    return found


def _model_digest(config: EngramEvalConfig, beside: Path) -> dict[str, str]:
    """Return a model's name and the hashes of its files."""
    return {"name": config.model} | {
        path.name: _file_digest(path, path.stat().st_mtime_ns)
        for path in sorted(find_model(config.model, beside).iterdir())
        if path.suffix in (".json", ".safetensors", ".txt", ".model")
    }


@lru_cache(maxsize=64)
def _file_digest(file: Path, changed: int) -> str:
    """Return the hash of a file as it was after a change; large ones are read once."""
    return _sha256(file)


def _sha256(file: Path) -> str:
    try:
        return sha256(file)
    except OSError as error:
        raise SwarmError(f"cannot read {file}: {error.strerror or error}") from error


def training_identity(config: EngramEvalConfig, beside: Path, facts: Facts, arm: str) -> dict[str, Any]:
    """Return what decides how an arm is trained."""
    learn = config.learn.model_dump(mode="json", exclude={"categories", "per_relation", "save_every"})
    return {
        "arm": arm,
        "model": _model_digest(config, beside),
        "learn": learn,
        "seed": config.seed,
        "device": config.device,
        "facts": digest(facts.told),
        **({"text_sha256": _sha256(path_in(beside, config.learn.text.file))} if config.learn.text else {}),
    }


def _train(
    config: EngramEvalConfig, beside: Path, folder: Path, facts: Facts, echo: Callable[[str], None]
) -> dict[str, Any]:
    """Return how the training of each learned arm went, once it has ended."""
    wanted = {}
    for arm in LEARNED if config.learn.categories else ():
        identity, place = training_identity(config, beside, facts, arm), folder / "adapters" / arm
        call = (arm, config, beside.resolve(), facts.told, place.resolve())
        wanted[arm] = Measurement(arm, place / "trained.json", identity, call)
        is_claimed(place / "recipe.json", identity)
    with ExitStack() as stack:
        for arm, training in wanted.items():
            place = training.file.parent
            make_folder(place)
            claim(place / "recipe.json", training.identity)
            stack.enter_context(training_shown(place / METRICS, config.learn.optimizer.steps, arm, echo))
        trained = measure_all(
            "training", [*wanted.values()], train_arm, echo, device=config.device,
            about=lambda found: f": {found['parameters']:,} parameters, loss {found['losses'][-1][1]:.3f}",
        )  # fmt: skip
    for training in wanted.values():
        shutil.rmtree(training.file.parent / STATES, ignore_errors=True)
    return dict(zip(wanted, trained, strict=True))
