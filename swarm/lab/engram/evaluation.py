"""`swarm eval`: train the learned arms, measure all arms, and write results and plots; one resumable command.

Owns the order, what is done already, and the folder. A measurement is a Ray task with one thread.

    runs/engram-<name>/
      adapters/<arm>/       adapter, recipe.json, metrics.jsonl, states/; trained.json: how the training went
      measured/<what>.json  identity and measurements
      results.json          plots
"""

import hashlib
import shutil
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import lru_cache
from pathlib import Path
from typing import Any

from swarm.config.training import resolve_device
from swarm.errors import SwarmError
from swarm.figures import to_png
from swarm.identity import claim, is_claimed, work_folder
from swarm.lab.engram.arms import model_folder
from swarm.lab.engram.config import ARMS, CONTROLS, LEARNED, LEARNED_ARMS, EngramEvalConfig
from swarm.lab.engram.facts import Facts, choose_facts, digest, edit_sets, unanswerable
from swarm.lab.engram.measures import measure
from swarm.lab.engram.plots import plots
from swarm.lab.engram.results import engram_results
from swarm.lab.engram.text_measures import rows_of_text
from swarm.lab.engram.training import practice_rows, train_arm
from swarm.lab.measurements import read_measured, refuse_other_measured, write_json, write_measured

Echo = Callable[[str], None]

ALONE = ("speed", "cost")
"""Measurements of time, beside which nothing else may run."""


def run_evaluation(config: EngramEvalConfig, beside: Path, folder: Path, echo: Echo) -> dict[str, Any]:
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
    facts = _checked(config, beside)
    wanted = {what: _identity(config, beside, facts, what) for what in measurements(config)}
    with work_folder(folder, ("adapters", "measured")):
        _train(config, beside, folder, facts, echo)
        _measure(config, beside, folder, wanted, echo)
        found = {}
        for what, identity in wanted.items():
            found[what] = read_measured(_measured_at(folder, what), identity)
            if found[what] is None:
                raise SwarmError(f"{_measured_at(folder, what)} vanished; run the same command again")
        trained = {}
        for arm in LEARNED if config.learn.categories else ():
            identity = training_identity(config, beside, facts, arm)
            trained[arm] = read_measured(folder / "adapters" / arm / "trained.json", identity)
        results = engram_results(config, facts, found, trained)
        write_json(folder / "results.json", results)
        for name, figure in plots(results).items():
            (folder / name).write_bytes(to_png(figure))
    return results


def _checked(config: EngramEvalConfig, beside: Path) -> Facts:
    """Return the facts, once all that an evaluation needs is known to be there.

    Raises:
        SwarmError: something is missing or does not fit.
    """
    from transformers import AutoConfig, AutoTokenizer

    folder = str(model_folder(config.model, beside))
    try:
        shape = AutoConfig.from_pretrained(folder).get_text_config(decoder=True)
        tokenizer = AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError, KeyError) as error:
        raise SwarmError(f"model: {folder} holds no model of transformers ({error})") from error
    text = config.text
    if config.learn.categories:
        rows_of_text(config, beside, tokenizer, text.gate_tokens, skip=text.tokens)
    else:
        rows_of_text(config, beside, tokenizer)
    facts = choose_facts(config, beside)
    if config.learn.categories:
        _check_learning(config, beside, facts, shape.num_hidden_layers)
    edit_sets(config, facts)
    if sum(record.kind == "unseen" for record in facts.sets["valid"]) < 20:
        raise SwarmError(
            f"at least 20 questions about keys that were never told are needed to calibrate; raise `unseen` or the "
            f"counts in {config.facts}"
        )
    if config.faq is not None:
        if not any(r.category == config.faq.category and not r.relation for r in facts.sets["test"]):
            raise SwarmError(f"faq.category: {config.faq.category} has no `questions` in {config.facts}")
        if len(unanswerable(config, beside)["calibrate"]) < 20:
            raise SwarmError("faq.calibrate: at least 20 unanswerable questions are needed")
    return facts


def _check_learning(config: EngramEvalConfig, beside: Path, facts: Facts, blocks: int) -> None:
    """Raise `SwarmError` where the learned arms cannot be trained, or would be trained on what is measured."""
    learn = config.learn
    if (last := learn.engram_config().layers[-1]) >= blocks:
        raise SwarmError(f"learn.engram.layers: no block {last}; the model has blocks 0 to {blocks - 1}")
    if without := sorted({fact.category for fact in facts.told if not fact.relation}):
        raise SwarmError(f"learn.categories: {', '.join(without)} has questions, not keys; it belongs to faq.category")
    practice_rows(
        learn.model_copy(update={"optimizer": learn.optimizer.model_copy(update={"steps": 1})}),
        beside,
        facts.told,
        config.seed,
    )
    if learn.text and _sha256(beside / learn.text.file) == _sha256(beside / config.text.file):
        raise SwarmError("learn.text.file is text.file: what is trained on must not be measured; name another text")


def measurements(config: EngramEvalConfig) -> list[str]:
    """Return the names of all measurements: what, then whose, then under which control or at which distance."""
    learned = LEARNED_ARMS if config.learn.categories else ()
    arms = [arm for arm in ARMS if arm in learned or arm not in LEARNED]
    found = []
    if learned:
        found += [f"ask:{arm}:{control}" for arm in arms for control in ("none", *CONTROLS.get(arm, ()))]
    found += [f"change:{arm}" for arm in ("exact", *learned)]
    for count in config.pairs.counts:
        controls = ("none", "shuffled", "capacity_1") if count == config.pairs.counts[0] else ("none",)
        found += [f"pairs:{count}:{control}" for control in controls]
    found += ["edits:exact:0", *(f"edits:hybrid:{draw}" for draw in range(config.edits.draws))]
    if config.faq is not None:
        found.insert(0, "faq")  # it takes longest
    for arm in ("in_context", "window", "exact", *(("engram", "engram_told") if learned else ())):
        found += [f"distraction:{arm}:{distance}" for distance in config.distraction.distances]
    if learned:
        found += ["gated:engram", "gated:lora_engram", "gates"]
    return found + (list(ALONE) if config.cost.tokens else [])


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
        exclude = set() if name == "gated" else {"gate_tokens"}
        found |= {
            "text": config.text.model_dump(mode="json", exclude=exclude),
            "text_sha256": _sha256(beside / config.text.file),
        }
    if name in ("pairs", "edits", "distraction", *ALONE):
        section = "pairs" if name in ALONE else name
        found[section] = getattr(config, section).model_dump(mode="json", exclude={"draws"})
    if name == "faq" and config.faq is not None:
        found |= {"faq": config.faq.model_dump(mode="json"), "strange": _sha256(beside / config.faq.unanswerable)}
    if name in ("edits", "faq") or what.startswith("ask:hybrid"):
        found["sets"] = digest([record for records in facts.sets.values() for record in records])
    if name == "ask" and rest[0] == "hybrid":
        found["abstain"] = config.edits.abstain
    if name in ALONE:
        found |= {"cost": config.cost.model_dump(mode="json"), "tables": config.learn.engram_config().to_dict()}
    control = rest[1] if name == "ask" else ""
    arms = {"gates": ["engram"], "speed": LEARNED_ARMS if config.learn.categories else ()}.get(name, rest[:1])
    trained = [arm.removesuffix("_told") + ("_capacity_1" if control == "capacity_1" else "") for arm in arms]
    found["trained"] = [training_identity(config, beside, facts, arm) for arm in trained if arm in LEARNED]
    return found


def _model_digest(config: EngramEvalConfig, beside: Path) -> dict[str, str]:
    """Return a model's name and the hashes of its files."""
    folder = model_folder(config.model, beside)
    kept = [path for path in sorted(folder.iterdir()) if path.suffix in (".json", ".safetensors", ".txt", ".model")]
    return {"name": config.model} | {path.name: _file_digest(path, path.stat().st_mtime_ns) for path in kept}


@lru_cache(maxsize=64)
def _file_digest(file: Path, changed: int) -> str:
    """Return the hash of a file as it was after a change; large ones are read once."""
    return _sha256(file)


def _sha256(file: Path) -> str:
    try:
        return hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError as error:
        raise SwarmError(f"cannot read {file}: {error.strerror or error}") from error


def _measured_at(folder: Path, what: str) -> Path:
    return folder / "measured" / f"{what.replace(':', '-')}.json"


def _measure(
    config: EngramEvalConfig, beside: Path, folder: Path, wanted: dict[str, dict[str, Any]], echo: Echo
) -> None:
    """Carry out what is missing; speed and cost come last, each alone."""
    from swarm.actors.ray_tasks import run_tasks

    (folder / "measured").mkdir(exist_ok=True)
    missing = [w for w, identity in wanted.items() if read_measured(_measured_at(folder, w), identity) is None]
    started = time.monotonic()
    settings = config.model_dump(mode="json")
    done_before = 0
    for part in ([w for w in missing if w not in ALONE], *([w] for w in ALONE if w in missing)):

        def done(index: int, measured: Any, part: list[str] = part) -> None:
            nonlocal done_before
            what = part[index]
            write_measured(_measured_at(folder, what), wanted[what], measured)
            done_before += 1
            echo(f"measured {what} ({done_before} of {len(missing)}, {time.monotonic() - started:.0f} s)")

        if part:
            calls = [(what, settings, str(beside.resolve()), str(folder.resolve())) for what in part]
            run_tasks(measure, calls, done, titles=[f"measuring {what}" for what in part], device=config.device)


def training_identity(config: EngramEvalConfig, beside: Path, facts: Facts, arm: str) -> dict[str, Any]:
    """Return what decides how an arm is trained."""
    learn = config.learn.model_dump(mode="json", exclude={"categories", "per_relation", "save_every"})
    found = {"arm": arm, "model": _model_digest(config, beside), "learn": learn, "seed": config.seed}
    found |= {"device": config.device, "facts": digest(facts.told)}
    return found | ({"text_sha256": _sha256(beside / config.learn.text.file)} if config.learn.text else {})


def _train(config: EngramEvalConfig, beside: Path, folder: Path, facts: Facts, echo: Echo) -> None:
    from swarm.actors.ray_tasks import run_tasks
    from swarm.actors.ray_train import METRICS
    from swarm.train.loop import STATES
    from swarm.train.progress import following, progress_lines

    arms = LEARNED if config.learn.categories else ()
    places = {arm: folder / "adapters" / arm for arm in arms}
    identities = {arm: training_identity(config, beside, facts, arm) for arm in arms}
    for arm, place in places.items():
        refuse_other_measured(place / "trained.json", identities[arm])
        is_claimed(place / "recipe.json", identities[arm])
    missing = [arm for arm in arms if read_measured(places[arm] / "trained.json", identities[arm]) is None]
    if not missing:
        return
    echo(f"training {', '.join(missing)} on {len(facts.told)} facts")
    started = time.monotonic()

    def done(index: int, measured: dict[str, Any]) -> None:
        arm = missing[index]
        write_measured(places[arm] / "trained.json", identities[arm], measured)
        shutil.rmtree(places[arm] / STATES, ignore_errors=True)
        passed = time.monotonic() - started
        echo(f"{arm}: {measured['parameters']:,} parameters, loss {measured['losses'][-1][1]:.3f} ({passed:.0f} s)")

    calls = []
    for arm in missing:
        places[arm].mkdir(parents=True, exist_ok=True)
        claim(places[arm] / "recipe.json", identities[arm])
        learn = config.learn.model_dump(mode="json")
        seed = config.seed
        calls.append((arm, config.model, str(beside.resolve()), learn, facts.told, seed, str(places[arm].resolve())))
    with ExitStack() as stack:
        for arm in missing:
            lines = progress_lines(config.learn.optimizer.steps, echo, f"{arm}: ")
            stack.enter_context(following(places[arm] / METRICS, lines))
        run_tasks(train_arm, calls, done, titles=[f"training of {arm}" for arm in missing], device=config.device)
