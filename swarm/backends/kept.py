"""Answers of endpoints that a run has paid for and not put on record yet: kept on disk, and not asked for again.

A tick is recorded whole, so a run that stops in the middle of one has answers that no record has. Each is written as it
arrives, under a hash of its request. Seeds are derived from run, episode, tick and agent, so the hash is the call's
idempotency key: what belongs to a tick that is on record by now is never asked for, and ignored. A killed process loses
nothing; a power cut may lose what the system had not written yet.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from pydantic import TypeAdapter

from swarm.backends.protocol import TextModel, TextRequest, TextResult
from swarm.errors import SwarmError
from swarm.files import Closing, LineTail
from swarm.record.journal import canonical_json

KEPT_NAME = "open_tick.jsonl"

OnResult = Callable[[int, TextResult], None]
"""Called with the number of a request in its batch, and its result, as soon as that is there."""

_RESULT = TypeAdapter(TextResult)


class KeptReplies(Closing):
    """The answers of the open tick.

    Args:
        path: the file; it is there while it holds any.

    Raises:
        SwarmError: it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._fd, self._is_closed = path, -1, False
        self._found: dict[str, TextResult] = {}
        self._lock = threading.Lock()  # results come from other threads, and a late one after its tick
        try:
            for line in LineTail(path).poll():
                with contextlib.suppress(ValueError, TypeError, RecursionError):  # what is unreadable is asked again
                    key, data = json.loads(line)
                    self._found[str(key)] = _RESULT.validate_python(data)
        except OSError as error:
            raise SwarmError(f"cannot read {path}: {error.strerror}") from error

    def get(self, key: str) -> TextResult | None:
        """Return the answer to a request, None where it is not here."""
        return self._found.get(key)

    def keep(self, key: str, result: TextResult) -> None:
        """Write an answer down.

        Raises:
            SwarmError: it cannot be written.
        """
        fields = {f.name: getattr(result, f.name) for f in dataclasses.fields(result) if f.name != "updates"}
        with self._lock:
            if self._is_closed:  # it belongs to a run that has stopped
                return
            try:
                if self._fd < 0:
                    self._open()
                os.write(self._fd, canonical_json([key, fields]) + b"\n")
            except OSError as error:
                raise SwarmError(f"cannot write {self._path}: {error.strerror}") from error
            self._found[key] = result

    def _open(self) -> None:
        """Go on with the file, behind its last whole line."""
        self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        size = os.fstat(self._fd).st_size
        if size and os.pread(self._fd, 1, size - 1) != b"\n":
            os.write(self._fd, b"\n")

    def clear(self) -> None:
        """Forget all answers: what they answered is on record."""
        with self._lock:
            if self._found:
                self._release()
                self._found = {}
                self._path.unlink(missing_ok=True)

    def close(self) -> None:
        """Close the file and keep no more; idempotent."""
        with self._lock:
            self._release()
            self._is_closed = True

    def _release(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class Telling(TextModel, Protocol):
    """A model that tells each result as it arrives."""

    def generate(
        self, requests: Sequence[TextRequest], deadline_s: float | None = None, on_result: OnResult = ...
    ) -> list[TextResult]:
        """Answer every request, as `TextModel.generate`."""


class KeptModel:
    """A model that is not asked again for what is kept.

    Args:
        model: the one that is asked.
        kept: the answers so far.
        whose: `agents` or `coordinator`, whose models may be others.
    """

    def __init__(self, model: Telling, kept: KeptReplies, whose: str) -> None:
        self._model, self._kept, self._whose = model, kept, whose
        self.max_length = model.max_length
        self.count_prompts, self.count_tokens, self.close = model.count_prompts, model.count_tokens, model.close

    def __repr__(self) -> str:
        return repr(self._model)

    def generate(self, requests: Sequence[TextRequest], deadline_s: float | None = None) -> list[TextResult]:
        """Answer every request, as `TextModel.generate`."""
        keys = [self._key(request) for request in requests]
        results = {number: found for number, key in enumerate(keys) if (found := self._kept.get(key)) is not None}
        todo = [number for number in range(len(requests)) if number not in results]
        if todo:
            answers = self._model.generate(
                [requests[number] for number in todo],
                deadline_s,
                lambda number, result: self._kept.keep(keys[todo[number]], result),
            )
            results.update(zip(todo, answers, strict=True))
        return [results[number] for number in range(len(requests))]

    def _key(self, request: TextRequest) -> str:
        """Return the idempotency key of a request; endpoints read no memories."""
        said = dataclasses.asdict(dataclasses.replace(request, memories=()))
        return hashlib.sha256(canonical_json([self._whose, said])).hexdigest()
