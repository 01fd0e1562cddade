"""What a chat is: exchanges, what was said of them, what was learned, and how it is taken back.

Everything follows from the journal of the folder (`chat.jsonl`): a chat that is opened again folds its records. So
whatever was killed, a learning step included, goes on with the same command.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

from swarm.agents.delta import KIND, delta_path
from swarm.chat.lesson import MOST_STEPS, SETTINGS, ChatTask
from swarm.chat.model import open_chat, sample_of
from swarm.chat.scope import Scope
from swarm.errors import SwarmError
from swarm.files import Closing, make_folder
from swarm.learn.accept import Outcome, held_delta
from swarm.learn.base import Base, hash_of
from swarm.learn.ordinary import MANNER, ordinary_requests
from swarm.learn.workers import close_children, run_alone
from swarm.process.progress import progress
from swarm.record.change import Change
from swarm.record.journal import JournalReader, JournalWriter, read_header, read_records
from swarm.record.records import FORMAT, EvidenceEntry, Exchange, Header, Record
from swarm.seeds import derive_seed
from swarm.text import checked_text
from ulm.delta import Delta
from ulm.memory.exact import ExactIndex

CHAT_NAME = "chat.jsonl"

ANSWER_TOKENS = 48

By = Literal["base", "delta", "facts"]
Mark = Literal["+", "-", "="]


@dataclass
class Told:
    """What the records of a chat come to.

    Attributes:
        exchanges: number -> the last record of it.
        out: exchanges that nothing is learned from any more: forgotten, or undone.
        deltas: (sha256, number of the exchange that led to it) of what holds, and of what held before.
        answered: exchanges, with what was typed, that a learning step has looked at.
        seqs: first and last `seq` of the exchanges.
    """

    exchanges: dict[int, Exchange] = field(default_factory=dict)
    out: set[int] = field(default_factory=set)
    deltas: list[tuple[str, int]] = field(default_factory=list)
    answered: set[tuple[int, str]] = field(default_factory=set)
    seqs: list[int] = field(default_factory=lambda: [0, 0])

    @property
    def delta(self) -> str:
        """Sha256 of what holds now, "" for nothing."""
        return self.deltas[-1][0] if self.deltas else ""

    def fold(self, record: Record) -> None:
        """Go on by one record."""
        if record["kind"] == "exchange":
            number = record["exchange"]
            self.exchanges[number] = record
            if record["mark"]:  # said anew: it counts again
                self.out.discard(number)
            self.seqs = [self.seqs[0] or record.get("seq", 0), record.get("seq", 0)]
        elif record["kind"] == "change":
            number = record["settings"]["exchange"]
            if record["cause"] == "learn":
                self.answered.add((number, record["settings"]["typed"]))
                if record["accepted"]:
                    self.deltas.append((record["result"], number))
            elif record["cause"] == "undo":
                self.out.add(number)
                self.deltas.pop()
            elif record["cause"] == "forget":
                self.out.add(number)
                if record["result"] != self.delta:  # what held before was learned from it
                    self.deltas = [(record["result"], 0)] if record["result"] else []

    def marked(self, *marks: str) -> list[Exchange]:
        """Return the exchanges with one of these marks that count, in order."""
        return [
            one for number, one in sorted(self.exchanges.items()) if one["mark"] in marks and number not in self.out
        ]

    def targets(self) -> dict[str, str]:
        """Return request -> answer to be learned: what was typed, and learned answers that were called good.

        An answer that was called bad is barred, even where it was called good elsewhere.
        """
        barred = {(one["request"], one["answer"]) for one in self.marked("-", "=")}
        found = {}
        for one in self.marked("=", "+"):
            if one["mark"] == "=":
                found[one["request"]] = one["better"]
            elif one["by"] == "delta" and (one["request"], one["answer"]) not in barred:
                found.setdefault(one["request"], one["answer"])
        return found

    def kept(self) -> list[str]:
        """Return requests whose answer by the base was called good."""
        targets = self.targets()
        return [one["request"] for one in self.marked("+") if one["by"] == "base" and one["request"] not in targets]

    def waiting(self) -> Exchange | None:
        """Return an exchange whose better answer no learning step has looked at; a killed chat leaves one."""
        for one in self.marked("="):
            if (one["exchange"], one["better"]) not in self.answered:
                return one
        return None


class Chat(Closing):
    """A model that one person talks with, and its folder.

    Args:
        name: of the model, as `swarm models list` has it, or a checkpoint.
        folder: of the chat; it goes on with what is there.
        base_dir: what relative names start from.

    Raises:
        SwarmError: there is no such model, or the folder belongs to another one, or to something else.
    """

    def __init__(self, name: str, folder: Path, base_dir: Path = Path()) -> None:
        self.name, self.folder, self.base_dir = name, folder, base_dir.absolute()
        self.told = Told()
        self.sha256 = hash_of(name, base_dir)
        header = _checked(folder, name, self.sha256)
        with progress(f"reading {name}"):
            self.model: Base = open_chat(name, self.base_dir, self.sha256)
            self.scope = Scope(self.model.checkpoint, ordinary_requests())
        make_folder(folder)
        path = folder / CHAT_NAME
        before = JournalReader(path) if path.exists() else None
        self._journal = JournalWriter(path, before=before, owner="chat")
        if header is None:
            self._write(_header(name, self.sha256))
        else:
            for record in read_records(path):
                self.told.fold(record)
            self._prune()  # what a chat that was killed left

    def _write(self, record: Any) -> None:
        seq = self._journal.next_seq
        self._journal.append(record)
        self.told.fold(cast("Record", {**record, "seq": seq}))

    @property
    def delta(self) -> Delta | None:
        """What was learned and holds."""
        return held_delta(self.folder, self.told.delta)

    def by(self, request: str) -> By:
        """Return who answers a request: the exact memory, what was learned, or the base."""
        targets = self.told.targets()
        if request in targets:
            return "facts"
        if not self.told.delta:
            return "base"
        return "delta" if self.scope.nearest(request, list(targets), self.told.kept()).is_taught else "base"

    def say(self, requests: list[str]) -> list[tuple[str, By, int]]:
        """Return answer, who gave it, and tokens, of each request; nothing is recorded."""
        bys = [self.by(request) for request in requests]
        found: list[tuple[str, By, int] | None] = [None] * len(requests)
        for by in dict.fromkeys(bys):
            some = [at for at, one in enumerate(bys) if one == by]
            results = self.model.answer(
                [self.model.asked(requests[at]) for at in some],
                ANSWER_TOKENS,
                None if by == "base" else self.delta,
                self.facts() if by == "facts" else None,
            )
            for at, result in zip(some, results, strict=True):
                found[at] = result.text.strip(), by, result.prompt_tokens + result.generated_tokens
        return [one for one in found if one is not None]

    def facts(self) -> ExactIndex:
        """Return the exact memory: what is to be learned, word by word, for the same requests."""
        index, encode = ExactIndex(), self.model.checkpoint.tokenizer.encode
        for request, answer in self.told.targets().items():
            sample = sample_of(self.model, request, answer)
            index.add(encode(sample.prompt), encode(sample.completion))
        return index

    def ask(self, request: str) -> Exchange:
        """Answer a request, and record it.

        Raises:
            SwarmError: it is empty or too long.
        """
        request = checked_text(request, "type a request")
        ((answer, by, tokens),) = self.say([request])
        number = max(self.told.exchanges, default=0) + 1
        exchange: Exchange = {
            "kind": "exchange",
            "exchange": number,
            "request": request,
            "answer": answer,
            "by": by,
            "tokens": tokens,
            "mark": "",
        }
        self._write(exchange)
        return self.told.exchanges[number]

    def mark(self, number: int, mark: Mark, better: str = "") -> None:
        """Record what the person says of an answer.

        Raises:
            SwarmError: there is no such exchange, or what was typed is empty or too long.
        """
        was = self.exchange(number)
        record: dict[str, Any] = {
            key: was.get(key) for key in ("kind", "exchange", "request", "answer", "by", "tokens")
        }
        if mark == "=":
            record["better"] = checked_text(better, "type the better answer after =")
        self._write({**record, "mark": mark})

    def exchange(self, number: int) -> Exchange:
        """Return an exchange.

        Raises:
            SwarmError: there is no such.
        """
        if number not in self.told.exchanges:
            last = max(self.told.exchanges, default=0)
            raise SwarmError(f"there is no exchange {number}; there are {f'1 to {last}' if last else 'none yet'}")
        return self.told.exchanges[number]

    def learn(self) -> Change | None:
        """Learn from the exchange that waits; None where none does."""
        if (waiting := self.told.waiting()) is None:
            return None
        number, typed = waiting["exchange"], waiting.get("better", "")
        with progress("learning from what you typed"):
            outcome = self._step(self.told.delta, SETTINGS.steps, number)
        change = self._change("learn", {"exchange": number, "typed": typed}, outcome, number)
        self._write(change.as_record())
        return change

    def _step(self, parent: str, steps: int, number: int) -> Outcome:
        return run_alone(self._task(parent, steps, number))

    def _task(self, parent: str, steps: int, number: int) -> ChatTask:
        pairs = tuple(self.told.targets().items())
        folder = self.folder.absolute()
        seed = derive_seed(0, "chat", number)
        return ChatTask(self.name, self.base_dir, self.sha256, folder, parent, pairs, steps, seed)

    def _change(self, cause: Any, settings: dict[str, Any], outcome: Outcome, number: int) -> Change:
        evidence = EvidenceEntry(
            records=self.told.seqs,
            digest=self._task("", 0, number).samples.digest,
            counts={"targets": len(self.told.targets())},
        )
        return Change(
            KIND,
            None,
            cause,
            self.told.delta,
            outcome.result,
            evidence,
            {**settings, "size": outcome.size},
            derive_seed(0, "chat", number),
            outcome.cost,
            outcome.tests,
            outcome.note,
            outcome.accepted,
        )

    def undo(self) -> Change:
        """Take back what was learned last; what was said in that exchange is not learned from again.

        Raises:
            SwarmError: nothing was learned, or only what stands after something was forgotten.
        """
        if not self.told.deltas or not self.told.deltas[-1][1]:
            raise SwarmError("nothing was learned since the beginning, or since something was forgotten")
        number = self.told.deltas[-1][1]
        parent = self.told.deltas[-2][0] if len(self.told.deltas) > 1 else ""
        change = Change(KIND, None, "undo", self.told.delta, parent, settings={"exchange": number})
        self._write(change.as_record())
        self._prune()
        return change

    def forget(self, number: int) -> Change:
        """Remove an exchange from all that is learned: the delta is computed anew from the base without it.

        Raises:
            SwarmError: there is no such exchange.
        """
        request, was_out = self.exchange(number)["request"], number in self.told.out
        looked_at = number in {one for one, _ in self.told.answered}
        was_learned = bool(self.told.delta) and (looked_at or request in self.told.targets())
        self.told.out.add(number)
        left = len(self.told.targets())
        try:
            if not was_learned:
                outcome = Outcome(self.told.delta, True, 1.0, (), {}, "nothing was learned from it")
            elif not left:
                outcome = Outcome("", True, 1.0, (), {}, "nothing is left to learn from")
            else:
                with progress("learning anew without it"):
                    outcome = self._step("", min(SETTINGS.steps * left, MOST_STEPS), number)
                if not outcome.accepted:  # what was learned from it must not stay
                    outcome = Outcome("", True, outcome.size, outcome.tests, outcome.cost, outcome.note)
            change = self._change("forget", {"exchange": number}, outcome, number)
        finally:
            if not was_out:
                self.told.out.discard(number)
        self._write(change.as_record())
        self._prune()
        return change

    def _prune(self) -> None:
        """Remove deltas that neither hold nor can hold again: rejected, undone, or learned from what is forgotten."""
        held = {sha256 for sha256, _ in self.told.deltas}
        for path in delta_path(self.folder, "x").parent.glob("*.safetensors"):
            if path.stem not in held:
                path.unlink(missing_ok=True)

    def close(self) -> None:
        """End learning and close the journal."""
        close_children()
        self._journal.close()


def _header(name: str, sha256: str) -> Header:
    settings = {"model": name, "system": MANNER.system, "learning": SETTINGS.model_dump(mode="json")}
    return {"kind": "header", "format": FORMAT, "config": {"chat": settings}, "checkpoints": {name: sha256}}


def _checked(folder: Path, name: str, sha256: str) -> Header | None:
    """Return the header of a chat that is there, None for a new one.

    Raises:
        SwarmError: the folder holds a chat with another model, or something else.
    """
    path = folder / CHAT_NAME
    if not path.exists():
        if folder.exists() and (not folder.is_dir() or {file.name for file in folder.iterdir()} - {"lock"}):
            raise SwarmError(f"{folder} holds something else than a chat; choose another --out")
        return None
    header = read_header(path)
    if header is None:
        return None
    (known, was), *_ = header["checkpoints"].items()
    if was != sha256:
        raise SwarmError(
            f"{folder} is a chat with {known} ({was[:12]}), and {name} has other weights; choose another --out"
        )
    return header


def model_of(folder: Path) -> str:
    """Return the name of the model of a chat's folder.

    Raises:
        SwarmError: there is no chat.
    """
    header = read_header(folder / CHAT_NAME) if (folder / CHAT_NAME).is_file() else None
    if header is None:
        raise SwarmError(f"{folder} holds no chat; name the folder that `swarm chat` printed")
    return str(header["config"]["chat"]["model"])
