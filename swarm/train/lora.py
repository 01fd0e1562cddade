"""Recipes of kind `lora`: an adapter (Hu et al., arXiv:2106.09685) of a pretrained model learns coordination texts.

The adapter ships in bfloat16, beside it what made it and how it scores, tuned and untuned, on puzzles that no training
text holds. AdamW at a linear schedule, as transformers' Trainer would do it.
"""

import importlib.util
import json
import random
import re
from collections.abc import Callable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import torch

from swarm.agents.model_sizes import check_adapter
from swarm.backends.models import ModelFolder, find_model, folder_hash, open_model
from swarm.backends.protocol import Structure, TextRequest
from swarm.config.shipped import maker_of
from swarm.errors import SwarmError
from swarm.files import path_in
from swarm.prompt import STOP
from swarm.text import command
from swarm.train import lessons
from swarm.train.lessons_from_runs import run_examples
from swarm.train.loop import trained
from swarm.train.recipe import LoraRecipe
from swarm.train.training import Scores, Training
from ulm.files import TakenError, settle, whole_folder
from ulm.train.answers import AnswerCollator, AnswerObjective
from ulm.train.step import Objective, Worker, make_optimizer

BUCKET = 16
"""Steps whose rows are sorted by length."""
MARKS = "+-"
"""What answers mark a menu with that they go through; nothing but the end of the menu ends them."""


class LoraTraining(Training[LoraRecipe]):
    """An adapter and the base that it is of."""

    files = frozenset({"adapter_config.json", "adapter_model.safetensors", "training.json"})

    def inputs(self) -> dict[str, Any]:
        """Return the hashes of the base and of the adapter that the training starts from, which must fit."""
        recipe = self.recipe
        if recipe.task != "runs":
            lessons.open_lessons(recipe.world, recipe.task)
        if importlib.util.find_spec("peft") is None:
            raise SwarmError("training an adapter needs the package peft: pip install 'ulm-swarm[hf]'")
        base = self._base()
        self._held_out()
        found = {"base_sha256": folder_hash(Path(base.path))}
        if (folder := self.init) is None:
            return found
        if not folder.exists() and (maker := maker_of(folder, self.beside)):
            raise SwarmError(f"init: no LoRA adapter at {folder}; make it first: {command('train', maker)}")
        try:
            config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
            shape = (config["r"], config["lora_alpha"])
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise SwarmError(f"init: no LoRA adapter at {folder} ({error})") from error
        if shape != (recipe.rank, recipe.alpha):
            raise SwarmError(f"init: {folder} has rank and alpha {shape}, the recipe {(recipe.rank, recipe.alpha)}")
        check_adapter(folder, Path(base.path), recipe.model)
        return {**found, "init_sha256": folder_hash(folder)}

    def _base(self) -> ModelFolder:
        return open_model(self.recipe.model, find_model(self.recipe.model, self.beside))

    def _held_out(self) -> list[lessons.Text]:
        """Return what the adapter is scored on: examples of the task's first kind."""
        recipe = self.recipe
        if recipe.task == "runs":
            _, found = run_examples([path_in(self.beside, run) for run in recipe.runs])
            return found[: recipe.score_examples]
        kind = lessons.open_lessons(recipe.world, recipe.task).tasks[recipe.task][0]
        return [
            lessons.pair(lessons.held_out_example(recipe.world, recipe.task, kind, recipe.seed, number))
            for number in range(recipe.score_examples)
        ]

    def _examples(self) -> Callable[[int], lessons.Text]:
        """Return number -> training text."""
        recipe = self.recipe
        if recipe.task == "runs":
            found, _ = run_examples([path_in(self.beside, run) for run in recipe.runs])
            return lambda number: found[number % len(found)]
        return lambda number: lessons.pair(lessons.example(recipe.world, recipe.task, recipe.seed, number))

    def model(self, device: str) -> Any:
        """Return the base with the adapter before the first step."""
        from peft import LoraConfig, PeftModel, get_peft_model
        from transformers import AutoModelForCausalLM
        from transformers.utils import logging

        logging.disable_progress_bar()
        recipe, place = self.recipe, self.recipe.place
        torch.manual_seed(recipe.seed)
        # On CPUs torch's fused attention took 1.3 of 5.2 s per step backward, its parts less (2 cores, 2026-11-26).
        attention = {"attn_implementation": "eager"} if device == "cpu" else {}
        base = AutoModelForCausalLM.from_pretrained(
            self._base().path, dtype=getattr(torch, place.dtype), local_files_only=True, **attention
        )
        if self.init is not None:
            return PeftModel.from_pretrained(base, str(self.init), is_trainable=True).to(device)
        shape = LoraConfig(
            r=recipe.rank, lora_alpha=recipe.alpha, target_modules="all-linear", lora_dropout=0.0, task_type="CAUSAL_LM"
        )
        return get_peft_model(base, shape).to(device)

    def objective(self, folder: Path, worker: Worker) -> Objective:
        """Return what a worker trains."""
        from transformers import AutoTokenizer

        from ulm.engram.blocks import decoder_blocks

        recipe, optimizer = self.recipe, self.recipe.optimizer
        model = self.model(worker.device.type).to(worker.device)
        if recipe.place.compile:
            base = model.get_base_model()
            for block in decoder_blocks(base, base.config.get_text_config().num_hidden_layers)[1]:
                block.compile(dynamic=True)  # in place, so that weights keep their names; blocks share what is compiled
        return AnswerObjective(
            model,
            make_optimizer(model, optimizer.lr, optimizer.weight_decay, optimizer.betas),
            worker,
            AnswerCollator(AutoTokenizer.from_pretrained(self._base().path, local_files_only=True)),
            _rows(recipe, self._examples()).__getitem__,
            batch_size=optimizer.batch_size,
            parts=optimizer.micro_batches,
            dtype=recipe.place.compute_dtype,
            sparse=True,
        )

    def ship(self, folder: Path, out: Path, device: str) -> Scores:
        """Write the adapter as bfloat16, without paths of this machine, and its scores."""
        from safetensors.torch import load_file, save_file

        model, base, held_out, adapter = self.model("cpu"), self._base(), self._held_out(), folder / "adapter"
        progress = trained(folder, model, self.recipe.optimizer.steps)
        model.save_pretrained(str(adapter))
        del model
        settle(adapter)
        try:
            with whole_folder(out, self.files) as fresh:
                weights = load_file(adapter / "adapter_model.safetensors")
                save_file({k: v.to(torch.bfloat16) for k, v in weights.items()}, fresh / "adapter_model.safetensors")
                config = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
                config["base_model_name_or_path"] = None
                config["target_modules"].sort()  # a set, in another order in each process
                _write(fresh / "adapter_config.json", config)
                scores = {name: score(base, at, held_out, device) for name, at in (("tuned", fresh), ("untuned", None))}
                meta = self.meta(progress, scores, device)
                _write(fresh / "training.json", {**meta, "base_sha256": folder_hash(Path(base.path))})
        except (OSError, TakenError) as error:
            raise SwarmError(f"cannot write adapter {out}: {error}") from error
        return scores


def _write(file: Path, data: Any) -> None:
    file.write_text(json.dumps(data, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def _rows(recipe: LoraRecipe, example: Callable[[int], lessons.Text]) -> list[dict[str, Any]]:
    """Return the rows of all steps, in their order: those of a step are about equally long, so little is padded."""
    rng = random.Random(recipe.seed)  # noqa: S311 - not for secrets
    found: list[dict[str, Any]] = []
    steps, size = recipe.optimizer.steps, recipe.optimizer.batch_size
    for start in range(0, steps, BUCKET):
        texts = [example(number)[1:] for number in range(start * size, min(start + BUCKET, steps) * size)]
        block = [
            # Of an answer with marks the form gives all other tokens.
            {"prompt": prompt, "answer": answer, "end": False, "learn": None if answer.endswith(STOP) else MARKS}
            for prompt, answer in sorted(texts, key=lambda text: len(text[0] + text[1]))
        ]
        batches = [block[at : at + size] for at in range(0, len(block), size)]
        rng.shuffle(batches)
        found += chain.from_iterable(batches)
    return found


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
    """Return the request for an answer; one with marks has the form of the right one and chooses the marks alone."""
    if marked:
        return TextRequest(prompt, None, 0, 64, 0.0, structure=Structure(regex=re.sub(r"[+-]", "[+-]", completion)))
    return TextRequest(prompt, None, 0, 32, 0.0, stop=(STOP,))


def _picks(text: str, marked: bool) -> list[str]:
    return (re.findall(r"([0-9]+)\+", text) or ["-"]) if marked else text.split()


def _share(right: Sequence[bool]) -> float:
    return round(sum(right) / len(right), 4)
