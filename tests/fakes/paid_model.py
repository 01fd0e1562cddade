"""An endpoint's model whose answers cost money, and the till that counts them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from swarm.backends.protocol import TextRequest, TextResult


class Till:
    """Makes models in place of `swarm.backends.openai.OpenAIModel`; answers depend on the request alone.

    Attributes:
        paid: (prompt, seed) -> how often that was answered.
        before: called before each answer with how many were given in all; raises to be away.
        answer: request -> text.
    """

    def __init__(self) -> None:
        self.paid: Counter[tuple[str, int]] = Counter()
        self.before: Callable[[int], None] = lambda number: None
        self.answer: Callable[[TextRequest], str | TextResult] = lambda request: str(request.seed % 97)

    def model(self, *_: Any, **__: Any) -> PaidModel:
        return PaidModel(self)


class PaidModel:
    max_length = 1 << 20

    def __init__(self, till: Till) -> None:
        self.till = till

    def check(self, *_: Any, **__: Any) -> tuple[str, TextResult]:
        return "pattern", TextResult("yes", 0, 0, "end")

    def generate(
        self,
        requests: Sequence[TextRequest],
        deadline_s: float | None = None,
        on_result: Callable[[int, TextResult], None] = lambda index, result: None,
    ) -> list[TextResult]:
        results = []
        for index, request in enumerate(requests):
            self.till.before(self.till.paid.total())
            self.till.paid[request.prompt, request.seed] += 1
            answer = self.till.answer(request)
            results.append(answer if isinstance(answer, TextResult) else TextResult(answer, 5, 2, "end"))
            on_result(index, results[-1])
        return results

    def count_prompts(self, requests: Sequence[TextRequest]) -> list[int]:
        return [5 for _ in requests]

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        return [len(text) for text in texts]

    def close(self) -> None: ...
