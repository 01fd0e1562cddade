"""Plain simulated annealing (Kirkpatrick et al. 1983) on a scorer: what learned search has to be compared with."""

import math
import random
import time
from collections.abc import Callable
from dataclasses import dataclass

RESTART_AFTER = 20_000  # evaluations of one start; the best of all starts counts
HOT, COLD = 0.01, 0.003  # of 12 schedules the best on the Golomb ruler, 3 seeds of 5 s each (2026-11-29)


@dataclass(frozen=True, slots=True)
class Annealed:
    """What annealing found.

    Attributes:
        score: of the best text.
        text: the best text.
        evaluations: texts that were scored, refused ones included.
        wall_s: seconds that it took.
    """

    score: float
    text: str
    evaluations: int
    wall_s: float


def anneal(
    score: Callable[[str], float],
    sample: Callable[[int], str],
    change: Callable[[str, random.Random], str],
    seed: int,
    evaluations: int | None = None,
    seconds: float | None = None,
) -> Annealed:
    """Return the best text of annealing from random starts, until evaluations or seconds are used up.

    The temperature, in units of the score, falls geometrically from `HOT` to `COLD` in every start.

    Args:
        score: the scorer; it refuses a text by a ValueError.
        sample: seed -> a random text.
        change: a text with a small change.
        seed: decides everything where `seconds` is None.
        evaluations: texts to score at most; None for no limit.
        seconds: to take at most; None for no limit.

    Raises:
        ValueError: there is no limit.
    """
    if evaluations is None and seconds is None:
        raise ValueError("annealing needs a limit of evaluations or of seconds")
    began_s, rng = time.monotonic(), random.Random(seed)  # noqa: S311 - no secret
    per_start = min(RESTART_AFTER, evaluations or RESTART_AFTER)
    best, best_text, used = -math.inf, "", 0

    def is_over() -> bool:
        late = seconds is not None and used % 64 == 0 and time.monotonic() - began_s >= seconds
        return late or (evaluations is not None and used >= evaluations)

    while not is_over():
        text, value = "", -math.inf
        for step in range(per_start):
            if is_over():
                break
            used += 1
            new = change(text, rng) if text else sample(rng.getrandbits(32))
            try:
                new_value = score(new)
            except ValueError:
                continue
            temperature = HOT * (COLD / HOT) ** (step / per_start)
            if new_value >= value or rng.random() < math.exp((new_value - value) / temperature):
                text, value = new, new_value
                if value > best:
                    best, best_text = value, text
    return Annealed(best, best_text, used, time.monotonic() - began_s)
