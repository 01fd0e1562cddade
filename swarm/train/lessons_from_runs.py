"""Training texts from runs that were won: what a coordinator could choose from, and what it chose.

Owns which calls of a run are lessons for a coordinator, whoever directed: rules, a model or a person. Only episodes
that were solved count, and of those no puzzle that is kept for evaluation. Every tenth solved episode is put aside for
scoring. Knows no torch.
"""

from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path

from swarm.coordinator.kinds import playbook
from swarm.errors import SwarmError
from swarm.prompt import STOP
from swarm.record.journal import JOURNAL_NAME, read_header
from swarm.run.experience import experience
from swarm.train.lessons import Text
from worlds.checked import other_options
from worlds.registry import world_class

SCORED = 10
"""Every so many solved episodes, one is for scoring."""


def run_examples(folders: Sequence[Path]) -> tuple[list[Text], list[Text]]:
    """Return what is trained on and what is scored on, in the order of the runs.

    Raises:
        SwarmError: a folder holds no run, or one of a world without menus or of puzzles that are kept for evaluation;
            or there is too little to learn from.
    """
    won = [examples for folder in folders for examples in _won(folder)]
    trained = [text for number, examples in enumerate(won, 1) if number % SCORED for text in examples]
    scored = [text for examples in won[SCORED - 1 :: SCORED] for text in examples]
    if not trained or not scored:
        raise SwarmError(
            f"{', '.join(map(str, folders))}: {len(won)} solved episodes with directives from a menu are too few to "
            f"train and to score on; run more of them (at least {SCORED})"
        )
    return trained, scored


def _won(folder: Path) -> Iterator[list[Text]]:
    """Yield the examples of each solved episode that has some."""
    header = read_header(folder / JOURNAL_NAME)
    if header is None:
        raise SwarmError(f"{folder} holds no run that has begun")
    section = header["config"]["world"]
    world = world_class(section["id"])
    if playbook(world.id).menu is None:
        raise SwarmError(f"{folder}: coordinators of {world.id} choose from no menu, so there is nothing to learn")
    options = world.Options.model_validate(section["options"])
    learnable = other_options(world, "for_training", options)
    if learnable is not None and learnable != options:
        there, wanted = options.model_dump(mode="json"), learnable.model_dump(mode="json")
        changes = " ".join(f"--set world.options.{key}={v}" for key, v in wanted.items() if there[key] != v)
        raise SwarmError(f"{folder} may hold puzzles that are kept for evaluation; make the run with {changes}")
    for _, calls in groupby(experience(folder), key=lambda call: call.key[0]):
        if examples := [
            ("run", call.prompt, f" {call.answer}{STOP}")
            for call in calls
            if call.role == "coordinator" and call.solved and call.answer
        ]:
            yield examples
