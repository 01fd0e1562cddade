"""`swarm train` for pretrained language models: a LoRA adapter (Hu et al., arXiv:2106.09685) on coordination traces.

Owns the recipe (`LoraRecipe`), the loop of a Ray Train worker, and the adapter that ships: bfloat16, beside it what
made it and how it scores, tuned and untuned, on puzzles that no training text holds. What a row says is the business of
`swarm.train.lessons`.
"""

from __future__ import annotations

import importlib.util
import json
import os
import random
import re
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field, model_validator

from swarm.actors.ray_tasks import require_device
from swarm.actors.ray_train import run_workers
from swarm.agents.model_sizes import check_adapter
from swarm.backends.models import ModelFolder, find_model, folder_hash, open_model
from swarm.backends.protocol import Structure, TextRequest
from swarm.config.section import Section
from swarm.errors import SwarmError
from swarm.prompt import STOP
from swarm.train import lessons
from swarm.train.lessons_from_runs import run_examples
from swarm.train.loop import METRICS
from swarm.train.memory_agent import check_recipe
from swarm.train.progress import following, progress_lines

__all__ = ["LoraRecipe", "train_lora"]

BUCKET = 16
"""Steps whose rows are sorted by length."""
MARKS = "+-"
"""What answers mark a menu with that they go through; nothing but the end of the menu ends them."""


class LoraRecipe(Section):
    """What a training file for a pretrained model may say.

    Attributes:
        name: names the run folder and the adapter.
        model: the base, as in `agents.model`; it stays as it is.
        world: whose lessons are learned.
        task: one of theirs for coordinators; or `runs`, what coordinators of any kind chose in episodes that were
            solved (`swarm.train.lessons_from_runs`).
        runs: their run folders, relative to the YAML file.
        seed: of rows and weights.
        init: adapter to go on from, relative to the YAML file; None begins with one that changes nothing.
        rank, alpha: of LoRA, on every linear layer.
        steps, batch_size, lr, warmup: AdamW with a linear schedule.
        save_every, log_every: in steps.
        workers, threads, device: where it runs.
        dtype: of the base and of matrix products; the adapter's weights and the optimizer stay float32.
        compile: run the layers through torch.compile; needs a C++ compiler, on CUDA Triton. It takes a minute at the
            start; from then on a step of SmolLM2 on 2 cores took half as long (LOG, 2026-11-26).
        score_examples: held-out rows that the adapter is scored on.
        out: adapter folder, relative to the YAML file.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    model: str
    world: str
    task: str
    runs: tuple[str, ...] = ()
    seed: int = Field(0, ge=0, lt=2**31)
    init: str | None = None
    rank: int = Field(8, ge=1, le=256)
    alpha: int = Field(16, ge=1)
    steps: int = Field(ge=1)
    batch_size: int = Field(32, ge=1)
    lr: float = Field(1e-3, gt=0)
    warmup: int = Field(20, ge=0)
    save_every: int = Field(50, ge=1)
    log_every: int = Field(10, ge=1)
    workers: int = Field(1, ge=1)
    threads: int | None = Field(None, ge=1)
    device: Literal["auto", "cpu", "cuda"] = "auto"
    dtype: Literal["float32", "bfloat16"] = "float32"
    compile: bool = False
    score_examples: int = Field(200, ge=1)
    out: str

    @model_validator(mode="after")
    def _shares_evenly(self) -> LoraRecipe:
        if self.batch_size % self.workers:
            raise ValueError(f"batch_size {self.batch_size} cannot be shared evenly by {self.workers} workers")
        if (self.task == "runs") != bool(self.runs):
            raise ValueError("`runs` names run folders for task 'runs', and only for it")
        return self


def _examples(recipe: LoraRecipe, beside: Path) -> Callable[[int], lessons.Text]:
    """Return number -> training text."""
    if recipe.task == "runs":
        found, _ = run_examples([beside / run for run in recipe.runs])
        return lambda number: found[number % len(found)]
    return lambda number: lessons.pair(lessons.example(recipe.world, recipe.task, recipe.seed, number))


def _held_out(recipe: LoraRecipe, beside: Path) -> list[lessons.Text]:
    """Return what an adapter is scored on: examples of the task's first kind."""
    if recipe.task == "runs":
        _, found = run_examples([beside / run for run in recipe.runs])
        return found[: recipe.score_examples]
    kind = lessons.open_lessons(recipe.world, recipe.task).tasks[recipe.task][0]
    return [
        lessons.pair(lessons.held_out_example(recipe.world, recipe.task, kind, recipe.seed, number))
        for number in range(recipe.score_examples)
    ]


def _rows(recipe: LoraRecipe, beside: Path) -> list[dict[str, Any]]:
    """Return the rows of all steps, in their order: those of a step are about equally long, so little is padded."""
    example = _examples(recipe, beside)
    rng = random.Random(recipe.seed)  # noqa: S311 - not for secrets
    found: list[dict[str, Any]] = []
    for start in range(0, recipe.steps, BUCKET):
        size = recipe.batch_size
        block: list[dict[str, Any]] = []
        for number in range(start * size, min(start + BUCKET, recipe.steps) * size):
            _, prompt, completion = example(number)
            learn = None if completion.endswith(STOP) else MARKS  # the form gives all other tokens
            block.append({"prompt": prompt, "answer": completion, "end": False, "learn": learn})
        block.sort(key=lambda row: len(row["prompt"] + row["answer"]))
        batches = [block[at : at + size] for at in range(0, len(block), size)]
        rng.shuffle(batches)
        found += chain.from_iterable(batches)
    return found


def _loop(settings: dict[str, Any]) -> None:
    """Run in every Ray Train worker: the whole training, from its last whole checkpoint on."""
    import ray.train
    from peft import LoraConfig, PeftModel, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer, PrinterCallback, TrainerCallback, TrainingArguments

    from ulm.engram import AnswerCollator
    from ulm.engram.blocks import decoder_blocks
    from ulm.engram.trainer import SparseAnswerTrainer, last_checkpoint

    recipe, folder = LoraRecipe.model_validate(settings["recipe"]), Path(settings["folder"])
    if recipe.threads:
        torch.set_num_threads(recipe.threads)
    torch.manual_seed(recipe.seed)
    # On CPUs torch's fused attention took 1.3 s of 5.2 per step backward; its parts take less (2 cores, 2026-11-26).
    attention = {"attn_implementation": "eager"} if settings["device"] == "cpu" else {}
    base = AutoModelForCausalLM.from_pretrained(
        settings["base"], dtype=getattr(torch, recipe.dtype), local_files_only=True, **attention
    )
    shape = LoraConfig(
        r=recipe.rank, lora_alpha=recipe.alpha, target_modules="all-linear", lora_dropout=0.0, task_type="CAUSAL_LM"
    )
    if settings["init"] is not None:
        model = PeftModel.from_pretrained(base, settings["init"], is_trainable=True)
    else:
        model = get_peft_model(base, shape)
    if recipe.compile:
        for block in decoder_blocks(base, base.config.get_text_config().num_hidden_layers)[1]:
            block.compile(dynamic=True)  # in place, so that weights keep their names; blocks share what is compiled
    first = ray.train.get_context().get_world_rank() == 0
    arguments = TrainingArguments(
        output_dir=str(folder / "checkpoints"),
        max_steps=recipe.steps,
        per_device_train_batch_size=recipe.batch_size // recipe.workers,
        learning_rate=recipe.lr,
        lr_scheduler_type="linear",
        warmup_steps=recipe.warmup,
        logging_steps=recipe.log_every,
        save_steps=recipe.save_every,
        save_total_limit=2,
        seed=recipe.seed,
        bf16=recipe.dtype == "bfloat16",
        use_cpu=settings["device"] == "cpu",
        dataloader_pin_memory=False,
        train_sampling_strategy="sequential",
        remove_unused_columns=False,
        report_to=[],
        disable_tqdm=True,
    )
    before, started = float(settings["seconds"]), time.monotonic()

    class Log(TrainerCallback):
        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
            if first and logs and "loss" in logs:
                seconds = before + time.monotonic() - started
                line = {"step": state.global_step, "loss": round(float(logs["loss"]), 5), "seconds": seconds}
                with (folder / METRICS).open("a", encoding="utf-8") as file:
                    file.write(json.dumps(line) + "\n")

    trainer = SparseAnswerTrainer(
        model,
        arguments,
        train_dataset=_rows(recipe, Path(settings["beside"])),
        data_collator=AnswerCollator(AutoTokenizer.from_pretrained(settings["base"], local_files_only=True)),
        callbacks=[Log()],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train(resume_from_checkpoint=last_checkpoint(folder / "checkpoints"))
    if first:
        model.save_pretrained(str(folder / "adapter.part"))
        shutil.rmtree(folder / "adapter", ignore_errors=True)
        (folder / "adapter.part").rename(folder / "adapter")
    ray.train.report({"step": recipe.steps})


def train_lora(
    recipe: LoraRecipe, beside: Path, folder: Path, out: Path, echo: Callable[[str], None], resume: bool = False
) -> Path:
    """Train, score and save an adapter; arguments and errors as of `swarm.train.policy.train`.

    Args:
        recipe: what to train.
        beside: folder of the YAML file.
        folder: working folder.
        out: adapter folder to write.
        echo: receives progress lines.
        resume: go on from the last checkpoint in `folder`.

    Returns:
        `out`.
    """
    require_device(recipe.device)
    for package in ("peft", "accelerate"):
        if importlib.util.find_spec(package) is None:
            raise SwarmError(f"training an adapter needs the package {package}: pip install 'ulm-swarm[hf]'")
    cuda = recipe.device != "cpu" and torch.cuda.is_available()
    if recipe.compile:
        _check_compiler(cuda)
    base = open_model(recipe.model, find_model(recipe.model, beside))
    held_out = _held_out(recipe, beside)
    init = None if recipe.init is None else _checked_init(beside, recipe, Path(base.path))
    identity = {**recipe.model_dump(mode="json"), "base": folder_hash(Path(base.path))}
    if init is not None:
        identity["init_sha256"] = folder_hash(init)
    recipe_file = folder / "recipe.json"
    if recipe_file.exists():
        if not resume:
            raise SwarmError(f"{folder} holds an earlier training; add --resume to go on, or remove the folder")
        check_recipe(recipe_file, identity)
    else:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            recipe_file.write_text(json.dumps(identity, indent=1, sort_keys=True), encoding="utf-8")
        except OSError as error:
            raise SwarmError(f"cannot write to {folder}: {error}") from error
    if not (folder / "adapter" / "adapter_model.safetensors").is_file():
        with following(folder / METRICS, progress_lines(recipe.steps, echo)):
            run_workers(
                _loop,
                {
                    "recipe": recipe.model_dump(mode="json"),
                    "folder": str(folder.resolve()),
                    "beside": str(beside.resolve()),
                    "base": base.path,
                    "init": None if init is None else str(init.resolve()),
                    "device": "cuda" if cuda else "cpu",
                    "seconds": _seconds(folder),
                },
                name=recipe.name,
                folder=folder,
                workers=recipe.workers,
                threads=recipe.threads,
                use_gpu=cuda,
            )
    _ship(folder / "adapter", out)
    scores = {
        "tuned": score(base, out, held_out, "cuda" if cuda else "cpu"),
        "untuned": score(base, None, held_out, "cuda" if cuda else "cpu"),
    }
    for name, row in scores.items():
        echo(f"score {name}: {row}")
    meta = {
        "recipe": recipe.model_dump(mode="json"),
        "base_sha256": identity["base"],
        "training_seconds": round(_seconds(folder), 1),
        "examples": recipe.steps * recipe.batch_size,
        "scores": scores,
        "hardware": f"{os.cpu_count()} CPU cores, {'cuda' if cuda else 'cpu'}",
    }
    (out / "training.json").write_text(json.dumps(meta, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    return out


def _check_compiler(cuda: bool) -> None:
    """Raise SwarmError if torch.compile lacks what it writes code for."""
    compiler = os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "g++")
    if cuda and importlib.util.find_spec("triton") is None:
        raise SwarmError("compile: torch.compile needs Triton on CUDA: pip install triton, or --set compile=false")
    if not cuda and shutil.which(compiler) is None:
        raise SwarmError(
            f"compile: torch.compile needs the C++ compiler {compiler}, which is not here; install it, name another "
            f"in CXX, or --set compile=false"
        )


def _checked_init(beside: Path, recipe: LoraRecipe, base: Path) -> Path:
    """Return the adapter to go on from.

    Raises:
        SwarmError: it is not there, or of another rank or model.
    """
    folder = beside / str(recipe.init)
    if not folder.exists() and (maker := _maker(folder, beside)):
        raise SwarmError(f"init: no LoRA adapter at {folder}; make it first: swarm train {maker}")
    try:
        config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
        shape = (config["r"], config["lora_alpha"])
    except (OSError, ValueError, KeyError) as error:
        raise SwarmError(f"init: no LoRA adapter at {folder} ({error})") from error
    if shape != (recipe.rank, recipe.alpha):
        raise SwarmError(f"init: {folder} has rank and alpha {shape}, the recipe {(recipe.rank, recipe.alpha)}")
    check_adapter(folder, base, recipe.model)
    return folder


def _maker(folder: Path, beside: Path) -> Path | None:
    """Return the recipe in a folder of YAML files that writes an adapter, None where no file says so."""
    for file in sorted(beside.glob("*.yaml")):
        out = re.search(r"^out: *(\S+)", file.read_text(encoding="utf-8"), re.MULTILINE)
        if out and (beside / out[1]).resolve() == folder.resolve():
            return file
    return None


def _seconds(folder: Path) -> float:
    try:
        lines = (folder / METRICS).read_text(encoding="utf-8").splitlines()
        return float(json.loads(lines[-1])["seconds"])
    except (OSError, ValueError, IndexError, KeyError):
        return 0.0


def _ship(adapter: Path, out: Path) -> None:
    """Write the adapter as bfloat16, without paths of this machine."""
    from safetensors.torch import load_file, save_file

    try:
        out.mkdir(parents=True, exist_ok=True)
        weights = load_file(adapter / "adapter_model.safetensors")
        save_file({k: v.to(torch.bfloat16) for k, v in weights.items()}, out / "adapter_model.safetensors")
        config = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
        config["base_model_name_or_path"] = None
        (out / "adapter_config.json").write_text(json.dumps(config, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    except OSError as error:
        raise SwarmError(f"cannot write adapter {out}: {error}") from error


def score(base: ModelFolder, adapter: Path | None, held_out: Sequence[lessons.Text], device: str) -> dict[str, Any]:
    """Score on held-out briefings, greedily.

    Returns:
        `n`; `first`: share whose first pick is among the right ones; `all`: share answered exactly. Of menus that are
        answered with marks also `marks`: share of marks that are right, and `minus`: that of always saying -.
    """
    from swarm.backends.transformers import TransformersModel

    model = TransformersModel(base, device, adapter=adapter)
    marked = not held_out[0][2].endswith(STOP)
    requests = [_asked(prompt, completion, marked) for _, prompt, completion in held_out]
    said = [result.text for result in model.generate(requests)]
    wanted = [completion for _, _, completion in held_out]
    answers, right = ([_picks(text, marked) for text in texts] for texts in (said, wanted))
    found = {
        "n": len(held_out),
        "first": _share([answer[:1] != [] and answer[0] in able for answer, able in zip(answers, right, strict=True)]),
        "all": _share([answer == able for answer, able in zip(answers, right, strict=True)]),
    }
    if marked:
        pairs = [(a, b) for x, y in zip(said, wanted, strict=True) for a, b in zip(x, y, strict=False) if b in MARKS]
        found |= {"marks": _share([a == b for a, b in pairs]), "minus": _share([b == "-" for _, b in pairs])}
    return found


def _asked(prompt: str, completion: str, marked: bool) -> TextRequest:
    if not marked:
        return TextRequest(prompt, None, 0, 32, 0.0, stop=(STOP,))
    form = Structure(regex=re.sub(r"[+-]", "[+-]", completion))
    return TextRequest(prompt, None, 0, 64, 0.0, structure=form)


def _picks(text: str, marked: bool) -> list[str]:
    if not marked:
        return text.split()
    return re.findall(r"([0-9]+)\+", text) or ["-"]


def _share(right: Sequence[bool]) -> float:
    return round(sum(right) / len(right), 4)
