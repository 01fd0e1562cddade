"""Decoding with deltas: what a row gets is its own, whatever stands beside it."""

import random
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch

from ulm.config import LTMConfig, ModelConfig, preset
from ulm.decode import stepper
from ulm.decode.deltas import DeltaStack, padded_shape
from ulm.decode.engine import Engine, GenerationRequest
from ulm.decode.stepper import LeanDecoder, Stepper
from ulm.delta import Delta, DeltaError
from ulm.model import Decoder
from ulm.tokenizer import Tokenizer

TOKENIZER = Tokenizer.bytes()
WINDOW = 48
IDS = (3, 40, 99, 120, 121)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def config(**changes: object) -> ModelConfig:
    return preset("1m", TOKENIZER.vocab_size, **{"window": WINDOW, "n_layer": 2} | changes)


def decoder(shape: ModelConfig) -> Decoder:
    model = Decoder(shape, seed=3).eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():  # texts of an untrained model would all look alike
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.05)
    return model


SHAPES = {
    "tied": config(),
    "untied": config(tie_embeddings=False),
    "small": preset("tiny", TOKENIZER.vocab_size, window=WINDOW, d_model=32, head_size=8, d_ff=48),
    "packed": config(),
}


@pytest.fixture(scope="module", params=list(SHAPES))
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "packed":  # as large models are
            patch.setattr(stepper, "PACK_FROM", 0)
        yield Engine(decoder(SHAPES[request.param]), TOKENIZER, max_batch=16)


def learned(model: Decoder, rank: int, seed: int, ids: tuple[int, ...] = IDS) -> Delta:
    """A delta that changes what the model writes."""
    new = Delta.new(model, rank, seed, ids)
    generator = torch.Generator().manual_seed(seed)
    factors = {
        name: (a_RK, torch.randn(b_NR.shape, generator=generator) * 0.05) for name, (a_RK, b_NR) in new.factors.items()
    }
    return replace(new, factors=factors, rows_EC=torch.randn(new.rows_EC.shape, generator=generator) * 0.3)


def deltas(model: Decoder) -> list[Delta | None]:
    """Deltas of several ranks and numbers of tokens, one of them twice, new ones, and none."""
    found: list[Delta | None] = [learned(model, rank, seed) for seed, rank in enumerate((4, 4, 4, 8, 3, 11))]
    found += [learned(model, 4, 7, ()), learned(model, 0, 8), Delta.new(model, 4, 9, IDS), None, None]
    return [*found, found[0]]


def requests(model: Decoder, seed: int = 0, longest: int = 70) -> list[GenerationRequest]:
    rng = random.Random(seed)
    return [
        GenerationRequest(
            tuple(TOKENIZER.encode("".join(rng.choices("(cy+ 17", k=rng.randint(1, longest))))),
            rng.getrandbits(40),
            rng.randint(4, 20),
            rng.choice([0.0, 1.0]),
            delta=delta,
        )
        for delta in deltas(model)
    ]


def test_a_new_delta_has_the_bits_of_none(engine: Engine) -> None:
    batch = requests(engine.model)
    bare = [replace(request, delta=None) for request in batch]
    new = [replace(request, delta=Delta.new(engine.model, 8, 1, IDS)) for request in batch]
    assert engine.generate(new) == engine.generate(bare)
    assert [r.text for r in engine.generate(batch)] != [r.text for r in engine.generate(bare)]


def test_a_result_does_not_depend_on_the_deltas_beside_it(engine: Engine) -> None:
    batch = requests(engine.model)
    alone = [engine.generate([request])[0] for request in batch]
    assert engine.generate(batch) == alone
    rng = random.Random(1)
    for size in (2, 5, 9):
        order = rng.sample(range(len(batch)), size)
        assert engine.generate([batch[i] for i in order]) == [alone[i] for i in order]
    assert engine.generate(batch * 3) == alone * 3  # more than one batch


@pytest.mark.thorough
@pytest.mark.parametrize(("rank", "threads"), [(4, 1), (4, 2), (16, 1)])
def test_logits_have_the_same_bits_in_any_company(engine: Engine, rank: int, threads: int) -> None:
    torch.set_num_threads(threads)
    model, rng = engine.model, random.Random(rank)
    mine, prompt, follow = learned(model, rank, 50), [5, 40, 7, 3, 9], [3, 40, 8]

    @torch.inference_mode()
    def found(beside: int, at: int) -> tuple[torch.Tensor, ...]:
        lean = LeanDecoder(model)
        owners: list[Delta | None] = [rng.choice([None, *others]) for _ in range(beside)]
        prompts = [[rng.randrange(99) for _ in range(rng.randint(1, 40))] for _ in range(beside)]
        owners.insert(at, mine)
        prompts.insert(at, prompt)
        found = lean.row_deltas(owners)
        cache, logits = lean.prefill(prompts, WINDOW, None, found)
        results, step = [logits[at]], Stepper(lean, cache, 9, deltas=found)
        for token in follow:
            ids_B = torch.tensor([rng.randrange(99) for _ in range(len(logits))])
            ids_B[at] = token
            results.append(step(ids_B)[at].clone())
        return *results, cache.kv_LBWED[:, at, : len(prompt) + len(follow)].clone()

    others = [learned(model, rng.choice([rank, rank, 2 * rank, 4]), seed) for seed in range(9)]
    expected = found(0, 0)
    for beside in (1, 2, 3, 6, 21):
        for at in (0, beside):
            assert all(torch.equal(a, b) for a, b in zip(expected, found(beside, at), strict=True)), (beside, at)


def test_a_delta_is_what_it_adds_to_the_weights(engine: Engine) -> None:
    for delta in filter(None, deltas(engine.model)):
        merged = Decoder(engine.model.config).eval().requires_grad_(False)
        merged.load_state_dict(delta.merged(engine.model))
        prompts = [[5, 40, 7, 3, 9], [3], list(range(30, 60))]
        with torch.inference_mode():
            beside, whole = LeanDecoder(engine.model), LeanDecoder(merged)
            found = beside.row_deltas([delta] * 3)
            cache, logits = beside.prefill(prompts, WINDOW, None, found)
            expected_cache, expected = whole.prefill(prompts, WINDOW)
            assert torch.allclose(logits, expected, atol=1e-3, rtol=1e-3)
            ids_B = torch.tensor([40, 3, 8, 40])
            after = Stepper(beside, cache, 1, deltas=found)(ids_B)
            assert torch.allclose(after[:3], Stepper(whole, expected_cache, 1)(ids_B)[:3], atol=1e-3, rtol=1e-3)
        greedy = [replace(request, temperature=0.0, delta=None) for request in requests(engine.model, 3)]
        theirs = Engine(merged, TOKENIZER).generate(greedy)
        assert engine.generate([replace(request, delta=delta) for request in greedy]) == theirs


def test_an_opening_is_shared_by_rows_with_the_same_delta_only(engine: Engine) -> None:
    opening = tuple(TOKENIZER.encode("you are one of "))
    batch = [
        replace(request, prompt=(*opening, *request.prompt), opening=len(opening))
        for request in requests(engine.model, longest=20)
    ]
    alone = [engine.generate([request])[0] for request in batch]
    assert engine.generate(batch) == alone
    assert engine.generate(batch[::-1]) == alone[::-1]
    whole = engine.generate([replace(request, opening=0) for request in batch])
    assert sum(a.text == b.text for a, b in zip(whole, alone, strict=True)) > 9  # rounding may tip a few


def test_padding_follows_from_the_delta_alone(engine: Engine) -> None:
    model = engine.model
    shapes = {rank: padded_shape(learned(model, rank, 1, IDS[:rank])) for rank in (1, 3, 4, 5)}
    assert shapes == {1: (4, 4), 3: (4, 4), 4: (4, 4), 5: (8, 8)}
    assert padded_shape(Delta.new(model, 4, 1)) == padded_shape(None) == (0, 0)
    stack = DeltaStack.of([learned(model, 5, 1), learned(model, 7, 2)], model, torch.float32)
    assert {(a.shape[2], b.shape[1]) for a, b in stack.factors.values()} == {(8, 8)}


def test_deltas_of_a_batch_are_put_beside_each_other_once(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    real = DeltaStack.of

    def spy(deltas: list[Delta], model: Decoder, dtype: torch.dtype) -> DeltaStack:
        made.append(len(deltas))
        return real(deltas, model, dtype)

    batch = [GenerationRequest("abc", seed, 4, 1.0, delta=learned(engine.model, 4, 70 + seed % 3)) for seed in range(6)]
    monkeypatch.setattr(DeltaStack, "of", spy)
    for _ in range(3):
        engine.generate(batch)
    assert made == [6]


def test_a_delta_that_all_rows_have_lies_there_once_and_gives_the_same_bits(engine: Engine) -> None:
    mine, other = learned(engine.model, 8, 1), learned(engine.model, 8, 2)
    batch = [replace(request, delta=mine) for request in requests(engine.model, 5)]
    together = engine.generate(batch)
    assert together == [engine.generate([request])[0] for request in batch]
    mixed = engine.generate([batch[0], *(replace(request, delta=other) for request in batch[1:])])
    assert mixed[0] == together[0]
    stacks = [DeltaStack.of([mine] * rows, engine.model, torch.float32) for rows in (16, 1)]
    stacks.append(stacks[0].select([3, 9, 1]))
    sizes = [sum(x.untyped_storage().nbytes() for x, _ in stack.factors.values()) for stack in stacks]
    assert len(set(sizes)) == 1


def test_a_delta_of_another_model_is_refused(engine: Engine) -> None:
    other = learned(decoder(config(d_model=64, n_head=2)), 4, 1)
    with pytest.raises(DeltaError, match="another shape"):
        engine.generate([GenerationRequest("abc", 1, 4, delta=other)])


def test_a_long_term_memory_reads_with_deltas_too() -> None:
    ltm = LTMConfig(layers=(1,), segment=8, capacity=16, n_head=2, head_size=16)
    engine = Engine(decoder(config(ltm=ltm)), TOKENIZER, max_batch=16)
    batch = requests(engine.model, longest=90)
    alone = [engine.generate([request])[0] for request in batch]
    together = engine.generate(batch)
    for mine, ours in zip(alone, together, strict=True):
        assert replace(mine, memory=None) == replace(ours, memory=None)
        assert mine.memory is not None
        assert ours.memory is not None
        assert mine.memory.to_bytes() == ours.memory.to_bytes()
    delta = batch[0].delta
    assert delta is not None
    merged = decoder(engine.model.config)
    merged.load_state_dict(delta.merged(engine.model))
    greedy = replace(batch[0], temperature=0.0)
    (expected,) = Engine(merged, TOKENIZER).generate([replace(greedy, delta=None)])
    assert engine.generate([greedy])[0].text == expected.text
