"""bAbI by a parser, a registry and a few operations: one µLM for 15 tasks, 200 labelled sentences of each.

    python tests/benchmarks/babi.py --data PATH/babi/en --out runs/babi            # train, then the tenth held out
    python tests/benchmarks/babi.py --data PATH/babi/en --out runs/babi --labels   # the labeller in the µLM's place
    python tests/benchmarks/babi.py --data PATH/babi/en --out runs/babi --test     # the test questions; once

The µLM turns a sentence (and the one before it) into propositions over numbered mentions, a question into propositions
with a hole. The registry keeps them with their time. Rules are found in the answers of training stories. No code below
knows which task it works on. Training resumes by the same command. The labels (`babi_labels.py`) are supervision that
the data do not come with. Null controls: the story of the next question of the task; nothing told; the answer that is
most frequent in training.
"""

from __future__ import annotations

import argparse
import json
import random
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

import torch
from babi_labels import RELATIONS, labelled

from swarm.config.training import OptimizerSection
from swarm.prompt import STOP
from swarm.stats import format_interval, format_rate, rate_interval
from swarm.train.loop import STATES, run_training
from ulm.checkpoint import load_checkpoint, save_checkpoint
from ulm.config import ModelConfig
from ulm.decode.constraint import Constraint
from ulm.decode.engine import Engine, GenerationRequest
from ulm.memory.registry import EntityRegistry, Origin
from ulm.model import Decoder
from ulm.symmetric.handles import Handles, Reading, words_of
from ulm.symmetric.mining import RuleMiner
from ulm.symmetric.questions import HOLE, Statement, answer, parse, pattern, tell
from ulm.symmetric.timeline import Rule, Timeline
from ulm.tokenizer import Tokenizer
from ulm.train.pairs import PairObjective
from ulm.train.states import RollingStates
from ulm.train.step import Worker, make_optimizer

TASKS = (1, 2, 3, 5, 6, 7, 8, 9, 11, 12, 13, 14, 15, 16, 19)
LABELLED = 200
"""Sentences and questions of each task with labels: the first ones."""

NUMBERS = ("none", "one", "two", "three", "four", "five", "six")
"""How the data write numbers."""

CONTROLLED = 100
"""Questions of each task for the null controls."""

BATCH = 128


class Line(NamedTuple):
    """A sentence, or a question with its answer ("" for a sentence), without the mark at the end."""

    text: str
    answer: str


Story = list[Line]


def stories(data: Path, task: int, part: str) -> list[Story]:
    """Return the stories of a task, in order."""
    files = sorted(data.glob(f"qa{task}_*_{part}.txt"))
    if not files:
        raise SystemExit(f"no file qa{task}_*_{part}.txt in {data}; give the folder `en` of bAbI")
    found: list[Story] = []
    for line in files[0].read_text(encoding="utf-8").splitlines():
        number, _, rest = line.partition(" ")
        text, _, more = rest.partition("\t")
        if number == "1":
            found.append([])
        found[-1].append(Line(text.strip(), more.split("\t")[0].strip().lower()))
    return found


def first(some: Sequence[Story], questions: int) -> list[Story]:
    """Return the first stories, up to so many questions."""
    counts = accumulate(sum(bool(line.answer) for line in story) for story in some)
    return [story for story, count in zip(some, counts, strict=True) if count <= questions]


def renamed(story: Story, names: Collection[str]) -> Story:
    """Return a story with all names spelled backwards, which no label has."""

    def turned(text: str) -> str:
        return re.sub(r"\w+", lambda word: word[0][::-1] if word[0].lower() in names else word[0], text)

    return [Line(turned(line.text), turned(line.answer)) for line in story]


def in_context(story: Story) -> Iterator[tuple[Line, str]]:
    """Yield lines with the sentence before, questions left out."""
    before = ""
    for line in story:
        yield line, before
        before = before if line.answer else line.text


def label(text: str, before: str) -> str:
    """Return what a person says that a line says."""
    return labelled(" ".join(words_of(text)[:-1]), " ".join(words_of(before)[:-1]))


def labels(train: Sequence[Sequence[Story]], count: int) -> list[tuple[str, str, str]]:
    """Return the first lines of each task with the sentence before and the label."""
    found = []
    for some in train:
        lines = [one for story in some for one in in_context(story)][:count]
        found += [(line.text, before, label(line.text, before)) for line, before in lines]
    return found


class Lessons:
    """Labelled lines as a training reads them, by number.

    Half of them are drawn among all lines, half so that what is rarely said is read as often as the rest. Half of those
    that need no sentence before get that of another line.
    """

    def __init__(self, lines: Sequence[tuple[str, str, str]], handles: Handles, seed: int) -> None:
        self._lines, self._handles, self._seed = lines, handles, seed
        self._alike: dict[str, list[tuple[str, str, str]]] = {}
        for text, before, says in lines:
            self._alike.setdefault(handles.read(text, before).labelled(says), []).append((text, before, says))

    def __call__(self, number: int) -> tuple[str, str]:
        """Return prompt and completion."""
        rng = random.Random(f"{self._seed} {number}")
        among = self._lines if number % 2 else rng.choice(list(self._alike.values()))
        text, before, says = rng.choice(among)
        reading = self._handles.read(text, before)
        said = reading.labelled(says)
        needs = any(f"[{mention}]" in said for mention in range(reading.own, len(reading.names)))
        if not needs and rng.random() < 0.5:
            reading = self._handles.read(text, rng.choice(self._lines)[1])
        return reading.prompt, f" {said}{STOP}"


def trained(out: Path, lines: Sequence[tuple[str, str, str]], handles: Handles, asked: argparse.Namespace) -> Engine:
    """Return the parser, trained to its end."""
    folder = out / f"parser-{asked.labelled}-s{asked.seed}"
    if not (folder / "policy").is_dir():
        lessons = Lessons(lines, handles, asked.seed)
        texts = [part for number in range(4000) for part in lessons(number)]
        tokenizer = Tokenizer.train(texts, 512, pieces=r" ?\[\d+\]")
        torch.manual_seed(asked.seed)
        config = ModelConfig(tokenizer.vocab_size, n_layer=3, n_head=4, n_kv_head=2, d_model=96, d_ff=256, head_size=24)
        model = Decoder(config)
        section = OptimizerSection(steps=asked.steps, batch_size=32, lr=2e-3, warmup=50)
        optimizer = make_optimizer(model, section.lr, section.weight_decay, section.betas)
        worker = Worker(0, 1, torch.device("cpu"), lambda record: print(json.dumps(record), flush=True))
        objective = PairObjective(model, optimizer, worker, tokenizer, lessons, batch_size=section.batch_size)
        progress = run_training(objective, section, states=RollingStates(folder / STATES))
        save_checkpoint(folder / "policy", model, tokenizer, {"seed": asked.seed, **progress})
    checkpoint = load_checkpoint(folder / "policy")
    print(f"parser: {checkpoint.model.num_parameters():,} parameters", flush=True)
    return Engine(checkpoint.model, checkpoint.tokenizer)


class Parser:
    """Reads lines, by a µLM or by the labeller.

    Args:
        handles: finds mentions.
        engine: of the µLM; None takes the labeller.
    """

    def __init__(self, handles: Handles, engine: Engine | None) -> None:
        self._handles, self._engine = handles, engine
        self._said: dict[str, str] = {}

    def prepare(self, some: Iterable[Story]) -> None:
        """Read what is not read yet, many prompts at once."""
        names = [relation.name for relation in RELATIONS] + [r.inverse for r in RELATIONS if r.inverse]
        wanted: dict[str, GenerationRequest] = {}
        for story in some:
            for line, before in in_context(story):
                reading = self._handles.read(line.text, before)
                if reading.prompt not in self._said and reading.prompt not in wanted and self._engine is not None:
                    form = " " + pattern(len(reading.names), names) + "\n"
                    constraint = Constraint.from_regex(form, self._engine.tokenizer)
                    wanted[reading.prompt] = GenerationRequest(reading.prompt, 0, 96, 0.0, constraint=constraint)
        requests = list(wanted.values())
        for at in range(0, len(requests), BATCH):
            assert self._engine is not None
            batch = requests[at : at + BATCH]
            for request, result in zip(batch, self._engine.generate(batch), strict=True):
                self._said[str(request.prompt)] = result.text.strip()

    def agreement(self, some: Iterable[Story]) -> list[bool]:
        """Return for each line whether it is read as the labeller reads it."""
        found = []
        for story in some:
            for line, before in in_context(story):
                reading, said = self.read(line, before)
                found.append(str(said) == reading.labelled(label(line.text, before)))
        return found

    def read(self, line: Line, before: str) -> tuple[Reading, Statement]:
        """Return what a line says; nothing where that makes no sense."""
        reading = self._handles.read(line.text, before)
        said = self._said.get(reading.prompt, "") if self._engine else reading.labelled(label(line.text, before))
        return reading, parse(said) or Statement(())


def registry() -> EntityRegistry:
    """Return an empty one that knows how relations behave."""
    made = EntityRegistry()
    for relation in RELATIONS:
        made.declare(relation)
    return made


class Question(NamedTuple):
    """A question where it is asked."""

    line: Line
    reading: Reading
    asked: Statement
    known: EntityRegistry


def told(parser: Parser, asked: Story, story: Story) -> Iterator[Question]:
    """Tell a story and yield the questions that are asked on the way, of this story or of one of equal length."""
    known = registry()
    lines = list(in_context(story))
    for number, (line, before) in enumerate(in_context(asked)):
        if number < len(lines) and not lines[number][0].answer:
            reading, said = parser.read(*lines[number])
            tell(known, said, reading.names, Origin("story", tick=number))
        if line.answer:
            yield Question(line, *parser.read(line, before), known)
    known.close()


def rules(parser: Parser, some: Iterable[Story]) -> list[Rule]:
    """Return the rules that answers of stories show, and print them."""
    miner = RuleMiner()
    for story in some:
        for question in told(parser, story, story):
            known, right = question.known, question.known.named(question.line.answer)
            if len(question.asked.triples) == 1 and not question.asked.before and right:
                subject, relation, hole = question.asked.triples[0]
                start = known.named(question.reading.name_of(subject))
                if hole == HOLE and relation != HOLE and start:
                    miner.add(Timeline(known), start[0], relation, right[0])
    found = miner.rules()
    for rule, right_, tried in found:
        print(f"rule found: {rule}, right {right_} of {tried}", flush=True)
    return [rule for rule, _, _ in found]


def said(question: Question, found: Sequence[Rule]) -> str:
    """Return the answer as the data write it."""
    words = answer(Timeline(question.known, found), question.asked, question.reading.names)
    return ",".join(NUMBERS[int(w)] if w.isdigit() and int(w) < len(NUMBERS) else w for w in words) or "nothing"


def right(
    parser: Parser, some: Sequence[Story], found: Sequence[Rule], instead: Sequence[Story] | None = None
) -> list[bool]:
    """Return which questions are answered right, after their stories or after others."""
    return [
        said(question, found) == question.line.answer
        for story, other in zip(some, instead or some, strict=True)
        for question in told(parser, story, other)
    ]


def report(task: int, parser: Parser, some: Sequence[Story], found: Sequence[Rule], learned: Sequence[Story]) -> float:
    """Print a task's line, with its null controls; return the share that is wrong."""
    result = right(parser, some, found)
    few = first(some, CONTROLLED)
    next_ = right(parser, few, found, [*few[1:], *few[:1]])
    nothing = right(parser, few, found, [[] for _ in few])
    often = Counter(line.answer for story in learned for line in story if line.answer).most_common(1)[0][0]
    guessed = [line.answer == often for story in few for line in story if line.answer]
    controls = {"next story": next_, "no registry": nothing, "most frequent answer": guessed}
    wrong = 1 - sum(result) / len(result)
    shown = ", ".join(f"{name} {format_rate(sum(some) / len(some))}" for name, some in controls.items())
    of = f"right {format_interval(rate_interval(result))}, n = {len(result)}; of {len(nothing)}: {shown}"
    print(f"task {task:>2}: {100 * wrong:5.2f} % wrong; {of}", flush=True)
    return wrong


def arguments() -> argparse.Namespace:
    """Return what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the folder `en` of bAbI")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--test", action="store_true", help="the test questions in place of the tenth held out")
    parser.add_argument("--labels", action="store_true", help="read by the labeller: the operations' part alone")
    parser.add_argument("--renamed", action="store_true", help="names that no label has, in what is measured")
    parser.add_argument("--labelled", type=int, default=LABELLED, help="lines of each task, at most 200")
    parser.add_argument("--mined", type=int, default=100, help="questions of each task whose answers show rules")
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--seed", type=int, default=1)
    return parser.parse_args()


def main() -> None:
    """Train, find rules, answer, print."""
    asked = arguments()
    torch.set_num_threads(1)
    every = [stories(asked.data, task, "train") for task in TASKS]
    train = [some[: -(len(some) // 10)] for some in every]
    measured = [some[-(len(some) // 10) :] for some in every]
    if asked.test:
        measured = [stories(asked.data, task, "test") for task in TASKS]
    lines = labels(train, min(asked.labelled, LABELLED))
    handles = Handles((text, says) for text, _, says in lines)
    reader = Parser(handles, None if asked.labels else trained(asked.out, lines, handles, asked))
    if asked.renamed:
        names = {*handles.names, *handles.names.values()}
        measured = [[renamed(story, names) for story in some] for some in measured]
    shown = [first(some, asked.mined) for some in train]
    for some in (*shown, *measured):
        reader.prepare(some)
    found = rules(reader, (story for some in shown for story in some))
    if not asked.test:
        exact = [one for some in measured for one in reader.agreement(some)]
        print(f"lines read otherwise than by the labeller: {exact.count(False)} of {len(exact):,}", flush=True)
    errors = [
        report(task, reader, some, found, learned) for task, some, learned in zip(TASKS, measured, train, strict=True)
    ]
    print(f"mean error {100 * sum(errors) / len(errors):.3f} %")


if __name__ == "__main__":
    main()
