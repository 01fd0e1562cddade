import random
import time
from dataclasses import replace

import pytest
import torch

from ulm.config import preset
from ulm.decode.constraint import Constraint
from ulm.decode.engine import Engine, GenerationRequest, GenerationResult, sample
from ulm.memory.exact import ExactIndex
from ulm.model import Decoder
from ulm.tokenizer import Tokenizer


@pytest.fixture(scope="module", params=[32, 30, 112], ids="window {}".format)
def engine(request: pytest.FixtureRequest) -> Engine:
    torch.set_num_threads(1)
    tokenizer = Tokenizer.bytes()
    model = Decoder(preset("tiny", tokenizer.vocab_size, window=request.param), seed=3)
    with torch.no_grad():  # a sharper head: texts of an untrained model would all look alike
        model.embed.weight.mul_(8)
    return Engine(model, tokenizer, max_batch=8)


def requests(n: int, rng: random.Random, temperature: float = 1.0) -> list[GenerationRequest]:
    return [
        GenerationRequest("x" * rng.randint(0, 60), rng.getrandbits(60), rng.randint(1, 20), temperature)
        for _ in range(n)
    ]


def test_an_opening_does_not_make_a_result_depend_on_its_batch(engine: Engine) -> None:
    rng = random.Random(1)
    opening = tuple(engine.tokenizer.encode("you are one of many: "))
    batch = requests(9, rng) + [
        GenerationRequest(
            (*opening, *engine.tokenizer.encode("x" * rng.randint(1, 60))), seed, 9, rng.choice([0.0, 1.0]), opening=21
        )
        for seed in range(9)
    ]
    alone = [engine.generate([request])[0] for request in batch]
    assert engine.generate(batch) == alone
    whole = engine.generate([replace(request, opening=0) for request in batch])
    assert sum(a.text == b.text for a, b in zip(whole, alone, strict=True)) > 15  # rounding may tip a few


@pytest.mark.parametrize(
    ("prompt", "opening"), [("text", 2), ((5, 6, 7), 3), ((5, 6, 7), -1)], ids=["text", "all of it", "negative"]
)
def test_an_opening_that_cannot_be_is_refused(engine: Engine, prompt: str | tuple[int, ...], opening: int) -> None:
    with pytest.raises(ValueError, match="opening of"):
        engine.generate([GenerationRequest(prompt, 0, 4, opening=opening)])


@pytest.mark.parametrize("size", [2, 3, 5, 6, 7, 11, 21])
def test_a_result_does_not_depend_on_its_batch(engine: Engine, size: int) -> None:
    rng = random.Random(size)
    batch = requests(size, rng)
    alone = [engine.generate([request])[0] for request in batch]
    assert engine.generate(batch) == alone
    order = list(range(size))
    rng.shuffle(order)
    shuffled = engine.generate([batch[i] for i in order])
    assert [shuffled[order.index(i)] for i in range(size)] == alone


def test_the_number_of_threads_changes_nothing(engine: Engine) -> None:
    batch = requests(13, random.Random(0))
    one = engine.generate(batch)
    torch.set_num_threads(2)
    two = engine.generate(batch)
    torch.set_num_threads(1)
    assert one == two


def test_greedy_text_is_the_argmax_of_the_full_forward_pass(engine: Engine) -> None:
    prompt = "tiles 3 7 11 target 145 and more than a window of text before it"
    (result,) = engine.generate([GenerationRequest(prompt, 0, 12, 0.0)])
    ids = engine.tokenizer.encode(prompt)
    for _ in range(result.generated_tokens):
        with torch.inference_mode():
            ids.append(int(engine.model(torch.tensor([ids]))[0, -1].argmax()))
    assert result.text == engine.tokenizer.decode(ids[len(engine.tokenizer.encode(prompt)) :])


def test_seed_decides_the_sample(engine: Engine) -> None:
    def text(seed: int) -> str:
        return engine.generate([GenerationRequest("hello", seed, 16)])[0].text

    assert text(1) == text(1)
    assert len({text(seed) for seed in range(5)}) > 1


def test_stop_string_is_cut_and_counted(engine: Engine) -> None:
    (free,) = engine.generate([GenerationRequest("abc", 5, 20)])
    stop = free.text[3:5]
    (stopped,) = engine.generate([GenerationRequest("abc", 5, 20, stop=(stop,))])
    assert stopped.text == free.text[: free.text.index(stop)]
    assert stopped.finish == "stop"
    assert stopped.generated_tokens < free.generated_tokens


def test_length_limit_ends_generation(engine: Engine) -> None:
    (result,) = engine.generate([GenerationRequest("abc", 5, 4)])
    assert (result.generated_tokens, result.finish) == (4, "length") or result.finish == "end"


def test_prompt_tokens_are_the_tokenizer_s(engine: Engine) -> None:
    assert engine.generate([GenerationRequest("abcd", 0, 1)])[0].prompt_tokens == 4
    assert engine.generate([GenerationRequest("", 0, 1)])[0].prompt_tokens == 1  # the end-of-text it starts from


def test_constraint_forces_the_text_into_its_language(engine: Engine) -> None:
    constraint = Constraint.from_regex(r"[ab]{2}[0-9]{3}", engine.tokenizer)
    batch = [GenerationRequest("go", seed, 10, constraint=constraint) for seed in range(9)]
    results = engine.generate(batch)
    assert all(result.text[:2].strip("ab") == "" and result.text[2:].isdigit() for result in results)
    assert {len(result.text) for result in results} == {5}
    assert {result.finish for result in results} == {"end"}
    assert len({result.text for result in results}) > 1


def test_constrained_rows_leave_free_rows_alone(engine: Engine) -> None:
    constraint = Constraint.from_choices(["yes", "no"], engine.tokenizer)
    free = GenerationRequest("abc", 5, 10)
    (alone,) = engine.generate([free])
    together = engine.generate([GenerationRequest("abc", 6, 10, constraint=constraint), free])
    assert together[1] == alone
    assert together[0].text in ("yes", "no")


def test_deadline_raises(engine: Engine) -> None:
    with pytest.raises(TimeoutError):
        engine.generate([GenerationRequest("abc", 5, 10)], deadline_s=time.monotonic() - 1)


def test_no_tokens_asked_for_is_an_error(engine: Engine) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        engine.generate([GenerationRequest("abc", 5, 0)])


def test_no_requests_no_results(engine: Engine) -> None:
    assert engine.generate([]) == []


def test_sampling_follows_the_distribution() -> None:
    logits = torch.log(torch.tensor([[0.1, 0.2, 0.7]])).expand(3000, 3)
    uniforms = torch.rand(3000, generator=torch.Generator().manual_seed(0))
    counts = sample(logits, uniforms, 1.0, 1.0).bincount(minlength=3) / 3000
    assert torch.allclose(counts, torch.tensor([0.1, 0.2, 0.7]), atol=0.03)


def test_top_p_keeps_the_smallest_set_that_reaches_it() -> None:
    logits = torch.log(torch.tensor([[0.15, 0.5, 0.05, 0.3]])).expand(500, 4)
    uniforms = torch.linspace(0, 0.999, 500)
    assert set(sample(logits, uniforms, 1.0, 0.79).tolist()) == {1, 3}
    assert set(sample(logits, uniforms, 1.0, 0.81).tolist()) == {0, 1, 3}


def test_low_temperature_sharpens() -> None:
    logits = torch.tensor([[1.0, 2.0]]).expand(500, 2)
    uniforms = torch.linspace(0, 0.999, 500)
    assert sample(logits, uniforms, 0.25, 1.0).float().mean() > sample(logits, uniforms, 2.0, 1.0).float().mean()


def test_forbidden_tokens_are_never_drawn() -> None:
    logits = torch.tensor([[float("-inf"), 0.0, float("-inf")]]).expand(4, 3)
    assert sample(logits, torch.tensor([0.0, 0.5, 0.9999, 0.99999994]), 1.0, 1.0).tolist() == [1] * 4


def test_result_type_is_plain(engine: Engine) -> None:
    (result,) = engine.generate([GenerationRequest("a", 1, 1)])
    assert isinstance(result, GenerationResult)


def test_facts_are_recalled_whatever_the_batch_and_leave_other_texts_alone(engine: Engine) -> None:
    encode = engine.tokenizer.encode
    mine, ours = ExactIndex(), ExactIndex()
    mine.add(encode("room 7 needs"), [*encode(" kavi"), engine.tokenizer.eot_id])
    ours.add(encode("room 7 needs"), [*encode(" tolu"), engine.tokenizer.eot_id])
    prompt = "x" * 40 + " room 7 needs"
    batch = [
        GenerationRequest(prompt, 1, 12, 0.7, facts=mine),
        GenerationRequest(prompt, 2, 12, 0.7, facts=ours),
        GenerationRequest(prompt, 3, 12, 0.7),
        GenerationRequest("room 8 needs", 4, 12, 0.7, facts=ours),
        *requests(7, random.Random(5), 0.7),
    ]
    found = engine.generate(batch)
    assert [(result.text, result.finish) for result in found[:2]] == [(" kavi", "end"), (" tolu", "end")]
    assert found == [engine.generate([request])[0] for request in batch]
    bare = [replace(request, facts=None) for request in batch]
    assert found[2:] == engine.generate(bare)[2:]


def test_a_constraint_holds_against_memory(engine: Engine) -> None:
    index = ExactIndex()
    index.add(engine.tokenizer.encode("say "), engine.tokenizer.encode("no"))
    choice = Constraint.from_choices(["yes", "now"], engine.tokenizer)
    (result,) = engine.generate([GenerationRequest("say ", 0, 8, 0.0, constraint=choice, facts=index)])
    assert result.text == "now"
    index.remove(engine.tokenizer.encode("say "), engine.tokenizer.encode("no"))
    index.add(engine.tokenizer.encode("say "), engine.tokenizer.encode("maybe"))
    (result,) = engine.generate([GenerationRequest("say ", 0, 8, 0.0, constraint=choice, facts=index)])
    assert result.text in ("yes", "now")
