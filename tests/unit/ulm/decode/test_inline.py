"""Inline answers: appended at a mark, read as if they had been written, and nobody else's business."""

import random
from dataclasses import replace

import pytest
import torch

from ulm.config import LTMConfig, preset
from ulm.decode.constraint import Constraint
from ulm.decode.engine import Engine, GenerationRequest
from ulm.decode.inline import spans_in
from ulm.model import Decoder
from ulm.tokenizer import Tokenizer

TOKENIZER = Tokenizer.bytes()


def engine_of(**changes: object) -> Engine:
    torch.set_num_threads(1)
    model = Decoder(preset("tiny", TOKENIZER.vocab_size, **{"window": 64} | changes), seed=3)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():  # texts of an untrained model would all look alike
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.05)
    return Engine(model, TOKENIZER, max_batch=16)


@pytest.fixture(scope="module")
def engine() -> Engine:
    return engine_of()


MARKS = tuple(chr(code) for code in range(32, 127))
"""So many that an untrained model, which writes any byte, meets them."""


def count(text: str) -> str | None:
    """Say how long the text is, now and then."""
    return f"<{len(text)}>" if len(text) % 2 else None


def requests(n: int, seed: int = 0) -> list[GenerationRequest]:
    rng = random.Random(seed)
    return [
        GenerationRequest(
            "x" * rng.randint(1, 40),
            rng.getrandbits(40),
            rng.randint(6, 24),
            rng.choice([0.0, 1.0, 1.0]),
            inline=count if i % 3 else None,
            inline_marks=MARKS,
        )
        for i in range(n)
    ]


def test_an_answer_follows_the_mark_and_its_place_is_told(engine: Engine) -> None:
    found = [engine.generate([request])[0] for request in requests(20) if request.inline]
    assert sum(len(result.inlined) for result in found) > 8
    for result in found:
        for start, end in result.inlined:
            assert result.text[start - 1] in MARKS
            assert f"<{start}>".startswith(result.text[start:end])
            assert result.text[start:end] == f"<{start}>" or (end == len(result.text) and result.finish == "length")


def test_a_text_goes_on_as_if_it_had_read_the_answer_as_prompt(engine: Engine) -> None:
    request = GenerationRequest("x" * 9, 0, 20, 0.0)
    (free,) = engine.generate([request])
    mark = free.text[2]
    cut = free.text.index(mark) + 1
    asked: list[str] = []

    def once(text: str) -> str | None:
        asked.append(text)
        return " 42 " if len(asked) == 1 else None

    (result,) = engine.generate([replace(request, inline=once, inline_marks=(mark,))])
    assert result.inlined == ((cut, cut + 4),)
    assert result.text[: cut + 4] == free.text[:cut] + " 42 "
    read = request.prompt + result.text[: cut + 4]  # type: ignore[operator]
    (after,) = engine.generate([replace(request, prompt=read, max_new_tokens=20 - cut - 4)])
    assert result.text[cut + 4 :] == after.text


def test_answers_are_counted_apart_and_within_the_limit(engine: Engine) -> None:
    for request in requests(20, 1):
        result = engine.generate([request])[0]
        assert result.generated_tokens + result.inlined_tokens <= request.max_new_tokens
        assert result.inlined_tokens == sum(end - start for start, end in result.inlined)  # a byte is a token here
        assert (result.inlined_tokens > 0) <= (request.inline is not None)
        if result.finish == "length":
            assert result.generated_tokens + result.inlined_tokens == request.max_new_tokens


@pytest.mark.parametrize("shape", [{}, {"ltm": LTMConfig(layers=(1,), segment=8, capacity=16)}], ids=["plain", "ltm"])
def test_a_text_is_the_same_whatever_is_answered_beside_it(shape: dict[str, object]) -> None:
    engine = engine_of(**shape)
    batch = requests(21, 2)
    alone = [replace(engine.generate([request])[0], memory=None) for request in batch]
    assert any(result.inlined for result in alone)
    order = random.Random(3).sample(range(21), 21)
    for chosen in (range(21), order, order[:5], order[:2]):
        together = engine.generate([batch[i] for i in chosen])
        assert [replace(result, memory=None) for result in together] == [alone[i] for i in chosen]


def test_a_function_that_says_nothing_changes_no_bit(engine: Engine) -> None:
    batch = requests(9, 4)
    silent = [replace(request, inline=lambda text: None) for request in batch]
    bare = [replace(request, inline=None) for request in batch]
    assert engine.generate(silent) == engine.generate(bare)
    empty = [replace(request, inline=lambda text: "") for request in batch]
    assert engine.generate(empty) == engine.generate(bare)


def test_a_stop_in_an_answer_ends_the_text_there(engine: Engine) -> None:
    batch = [
        replace(request, max_new_tokens=20, temperature=1.0, stop=("\n",), inline=lambda text: "7\n8")
        for request in requests(9, 5)
    ]
    stopped = [result for result in engine.generate(batch) if result.inlined]
    assert len(stopped) > 4
    for result in stopped:
        ((start, end),) = result.inlined
        assert (result.finish, result.text[start:], end) == ("stop", "7", len(result.text))


def test_it_is_asked_at_marks_only(engine: Engine) -> None:
    asked: list[str] = []

    def listen(text: str) -> None:
        asked.append(text)

    (result,) = engine.generate(
        [replace(requests(2, 6)[1], max_new_tokens=24, inline=listen, inline_marks=("a", "b", "c", "d", "\x10"))]
    )
    assert asked == [result.text[: i + 1] for i, letter in enumerate(result.text[:-1]) if letter in "abcd\x10"]


def test_answers_and_a_constraint_are_refused(engine: Engine) -> None:
    choice = Constraint.from_choices(["yes"], TOKENIZER)
    with pytest.raises(ValueError, match="constraint"):
        engine.generate([replace(requests(2)[1], constraint=choice)])


def test_what_was_appended_is_found_in_a_text_again() -> None:
    def ask(text: str) -> str | None:
        return {"2+3=": "5", "2+3=5 5=": "x=", "9=": "1"}.get(text)

    text = "2+3=5 5=x=7 9=1"
    assert [text[start:end] for start, end in spans_in(ask, text)] == ["5", "x="]
    assert spans_in(ask, "2+3=6") == ()  # somebody else wrote that
