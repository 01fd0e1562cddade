"""The inner loop of decoding: the same logits as the plain path, row by row, whatever stands beside a row."""

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from ulm.config import preset
from ulm.decode import stepper
from ulm.decode.engine import Engine, GenerationRequest
from ulm.decode.stepper import LeanDecoder, Stepper
from ulm.model import Decoder, KVCache
from ulm.tokenizer import Tokenizer

pytestmark = pytest.mark.thorough

VOCAB = 300
WINDOW = 16


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.inference_mode():
        yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module", params=["tied", "untied", "packed"])
def model(request: pytest.FixtureRequest) -> Iterator[Decoder]:
    tied = request.param == "tied"
    model = Decoder(preset("1m", VOCAB, window=WINDOW, n_layer=2, tie_embeddings=tied), seed=1)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.05)
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "packed":  # as large models are
            patch.setattr(stepper, "PACK_FROM", 0)
        yield model.eval().requires_grad_(False)


def read(model: Decoder, counts: list[int], slots: int = WINDOW) -> tuple[Tensor, KVCache]:
    """Random prompts of the given lengths, and the cache after them."""
    ids = torch.randint(0, VOCAB, (len(counts), max(counts)), generator=torch.Generator().manual_seed(3))
    cache = KVCache.empty(model.config, len(counts), slots)
    model.extend(ids, cache, torch.tensor(counts), last_only=True)
    return ids, cache


def followers(rows: int, steps: int) -> Tensor:
    return torch.randint(0, VOCAB, (steps, rows), generator=torch.Generator().manual_seed(4))


def test_steps_give_the_logits_of_the_plain_path_before_and_after_the_ring_is_full(model: Decoder) -> None:
    counts = [3, 8, 5, 1]
    _, plain = read(model, counts)
    _, lean = read(model, counts)
    step = Stepper(LeanDecoder(model), lean, 20)
    for ids_B in followers(4, 20):  # the window is 16: every ring wraps
        expected = model.extend(ids_B[:, None], plain)[0][:, 0]
        assert torch.allclose(step(ids_B), expected, atol=1e-4)
    assert torch.equal(lean.positions_BW, plain.positions_BW)
    assert torch.equal(lean.lengths_B, plain.lengths_B)
    assert torch.allclose(lean.kv_LBWED, plain.kv_LBWED, atol=1e-4)


def test_a_stepper_can_take_over_from_another_with_fewer_rows(model: Decoder) -> None:
    _, cache = read(model, [3, 8, 5, 1])
    _, whole = read(model, [3, 8, 5, 1])
    first, second, third = followers(4, 3)
    Stepper(LeanDecoder(model), cache, 3)(first)
    undisturbed = Stepper(LeanDecoder(model), whole, 3)
    undisturbed(first)
    fewer = Stepper(LeanDecoder(model), cache.select(torch.tensor([2, 0, 2, 2])), 2)
    for ids_B in (second, third):
        expected = undisturbed(ids_B)[[2, 0, 2, 2]]
        assert torch.equal(fewer(ids_B[[2, 0, 2, 2]]), expected)


def test_weights_are_shared_not_copied(model: Decoder) -> None:
    if stepper.PACK_FROM == 0:
        pytest.skip("packed weights are copies")
    _, cache = read(model, [4, 4, 4, 4])
    step = Stepper(LeanDecoder(model), cache, 2)
    before = step(torch.zeros(4, dtype=torch.long)).clone()
    cache.lengths_B -= 1  # the same token again
    model.blocks[0].down.weight.mul_(2)  # type: ignore[union-attr]
    assert not torch.equal(step(torch.zeros(4, dtype=torch.long)), before)
    model.blocks[0].down.weight.div_(2)  # type: ignore[union-attr]


def prompts_of(counts: list[int], seed: int) -> list[list[int]]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(0, VOCAB, (n,), generator=generator).tolist() for n in counts]


@pytest.mark.parametrize(
    "counts", [[1], [5, 16, 2], [9, 1, 16, 16, 3, 8] * 7], ids=["one", "three", "more than a chunk"]
)
def test_prefill_gives_the_logits_and_the_cache_of_the_plain_path(model: Decoder, counts: list[int]) -> None:
    prompts = prompts_of(counts, 6)
    cache, logits = LeanDecoder(model).prefill(prompts, WINDOW)
    rows = -(-len(counts) // 4) * 4
    assert logits.shape == (rows, VOCAB)
    assert cache.positions_BW.shape == (rows, WINDOW)
    for row in range(rows):
        ids = prompts[row if row < len(prompts) else 0]
        plain = KVCache.empty(model.config, 1, WINDOW)
        expected = model.extend(torch.tensor([ids]), plain, last_only=True)[0][0, 0]
        assert torch.allclose(logits[row], expected, atol=1e-4)
        assert torch.equal(cache.positions_BW[row], plain.positions_BW[0])
        assert torch.allclose(cache.kv_LBWED[:, row], plain.kv_LBWED[:, 0], atol=1e-4)
        assert int(cache.lengths_B[row]) == len(ids)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("companions", [[], [1, 2], [16] * 9, [3, 16, 8, 1] * 16], ids=len)
def test_prefill_gives_a_prompt_the_same_bits_in_any_company(
    model: Decoder, companions: list[int], threads: int
) -> None:
    torch.set_num_threads(threads)
    (mine,) = prompts_of([7], 8)
    lean = LeanDecoder(model)
    alone, expected = lean.prefill([mine], WINDOW)
    for at in {0, len(companions) // 2, len(companions)}:
        prompts = prompts_of(companions, 9)
        prompts.insert(at, mine)
        cache, logits = lean.prefill(prompts, WINDOW)
        assert torch.equal(logits[at], expected[0])
        assert torch.equal(cache.kv_LBWED[:, at], alone.kv_LBWED[:, 0])


def test_an_opening_is_read_once_and_changes_nothing_but_the_last_bits(
    model: Decoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    (opening, other) = prompts_of([9, 4], 12)
    prompts = [opening + rest for rest in prompts_of([1, 7, 3], 13)]
    prompts += [other + rest for rest in prompts_of([12, 1], 14)]
    lean, whole = LeanDecoder(model), LeanDecoder(model)
    expected, expected_logits = whole.prefill(prompts, WINDOW)
    seen: list[list[int]] = []
    real = LeanDecoder._prefill

    def spy(self: LeanDecoder, prompts: Sequence[Sequence[int]], *rest: Any) -> Tensor:
        seen.extend(list(ids) for ids in prompts)
        return real(self, prompts, *rest)

    monkeypatch.setattr(LeanDecoder, "_prefill", spy)
    for turn in range(2):
        cache, logits = lean.prefill(prompts, WINDOW, [9, 9, 9, 4, 0])
        assert torch.allclose(logits, expected_logits, atol=1e-4)
        assert torch.allclose(cache.kv_LBWED, expected.kv_LBWED, atol=1e-4)
        assert torch.equal(cache.positions_BW, expected.positions_BW)
        assert torch.equal(cache.lengths_B, expected.lengths_B)
        assert (seen.count(opening), seen.count(other)) == (1, 1), turn
        assert seen.count(prompts[0][9:]) == turn + 1
        assert seen.count(prompts[4]) == turn + 1
    step, plain = Stepper(lean, cache, 9), Stepper(whole, expected, 9)
    for ids_B in followers(8, 9):  # until the rings are full and the opening is written over
        assert torch.allclose(step(ids_B), plain(ids_B), atol=1e-4)
    assert torch.equal(lean.prefill(prompts, WINDOW, [9, 9, 9, 4, 0])[1], logits)  # what is kept is kept as it was


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("companions", [[], [1, 2], [6] * 9, [3, 6, 4, 1] * 60], ids=len)
def test_a_prompt_with_an_opening_has_the_same_bits_in_any_company(
    model: Decoder, companions: list[int], threads: int
) -> None:
    torch.set_num_threads(threads)
    (opening, mine) = prompts_of([10, 5], 15)
    alone, expected = LeanDecoder(model).prefill([opening + mine], WINDOW, [10])
    lean = LeanDecoder(model)
    for openings in (10, 0):  # companions that share the opening, or are read whole
        prompts = [opening + rest for rest in prompts_of(companions, 16)]
        prompts.insert(len(companions) // 2, opening + mine)
        split = [openings] * len(prompts)
        split[len(companions) // 2] = 10
        cache, logits = lean.prefill(prompts, WINDOW, split)
        assert torch.equal(logits[len(companions) // 2], expected[0])
        assert torch.equal(cache.kv_LBWED[:, len(companions) // 2], alone.kv_LBWED[:, 0])


def test_openings_used_last_are_kept(model: Decoder, monkeypatch: pytest.MonkeyPatch) -> None:
    lean = LeanDecoder(model)
    first, second, *others = prompts_of([5] * (stepper.MAX_OPENINGS + 1), 17)
    for ids in (first, second, *others[:-1], first, others[-1]):
        lean.prefill([ids], WINDOW, [3])
    read: list[int] = []
    real = LeanDecoder._prefill

    def spy(self: LeanDecoder, prompts: Sequence[Sequence[int]], *rest: Any) -> Tensor:
        read.extend(len(ids) for ids in prompts)
        return real(self, prompts, *rest)

    monkeypatch.setattr(LeanDecoder, "_prefill", spy)
    for ids in (first, *others):
        lean.prefill([ids], WINDOW, [3])
    assert 3 not in read
    lean.prefill([second], WINDOW, [3])
    assert read.count(3) == 1


@pytest.mark.parametrize(
    "shape",
    [{}, {"head_size": 16, "n_kv_head": 4}, {"head_size": 4, "n_kv_head": 2, "n_head": 4}],
    ids=["preset", "small heads", "tiny heads"],
)
def test_a_row_has_the_same_bits_beside_texts_of_any_length(shape: dict[str, int]) -> None:
    """Attention is as wide as the longest text of the batch needs."""
    model = Decoder(preset("1m", VOCAB, window=96, n_layer=2, **shape), seed=1).eval().requires_grad_(False)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3)
    lean = LeanDecoder(model)
    for length in (1, 5, 7, 11):
        (mine,) = prompts_of([length], 10 + length)

        def stepped(companions: list[int], mine: list[int] = mine) -> Tensor:
            cache, _ = lean.prefill([mine, *prompts_of(companions, 11)], 96)
            step = Stepper(lean, cache, 20)
            return torch.stack([step(torch.full((4,), 5 + i))[0].clone() for i in range(20)])

        expected = stepped([7, 7, 7])
        for companions in ([1, 1, 1], [15, 1, 40], [76, 30, 2]):
            assert torch.equal(stepped(companions), expected)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.bfloat16, 0.1)])
def test_long_and_short_prompts_and_their_steps_follow_the_plain_path(dtype: torch.dtype, tolerance: float) -> None:
    model = Decoder(preset("1m", VOCAB, window=96, n_layer=2), seed=1).eval().requires_grad_(False).to(dtype)
    lean, counts = LeanDecoder(model), [3, 17, 70, 33]
    prompts = prompts_of(counts, 12)
    cache, logits = lean.prefill(prompts, 96)
    plain = [KVCache.empty(model.config, 1, 96, dtype=dtype) for _ in counts]
    for row, ids in enumerate(prompts):
        expected = model.extend(torch.tensor([ids]), plain[row], last_only=True)[0][0, 0]
        assert torch.allclose(logits[row].to(expected.dtype), expected, atol=tolerance)
    step = Stepper(lean, cache, 40)
    for ids_B in followers(4, 40):  # the longest wraps
        found = step(ids_B)
        for row, token in enumerate(ids_B.tolist()):
            expected = model.extend(torch.tensor([[token]]), plain[row])[0][0, 0]
            assert torch.allclose(found[row].to(expected.dtype), expected, atol=tolerance)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("batch", [8, 12, 64])
def test_a_row_has_the_same_bits_whatever_its_companions(model: Decoder, batch: int, threads: int) -> None:
    torch.set_num_threads(threads)
    mine, follow = [7, 7, 7, 7], followers(1, 3)
    ids = torch.randint(0, VOCAB, (1, 8), generator=torch.Generator().manual_seed(5))

    def logits(rows: int, at: int) -> Tensor:
        generator = torch.Generator().manual_seed(rows + at)
        prompts = torch.randint(0, VOCAB, (rows, 8), generator=generator)
        counts = torch.randint(1, 9, (rows,), generator=generator)
        prompts[at], counts[at] = ids[0], mine[0]
        cache = KVCache.empty(model.config, rows, WINDOW)
        model.extend(prompts, cache, counts, last_only=True)
        step = Stepper(LeanDecoder(model), cache, 3)
        found = []
        for token in follow:
            beside = torch.randint(0, VOCAB, (rows,), generator=generator)
            beside[at] = token[0]
            found.append(step(beside)[at].clone())
        return torch.stack(found)

    expected = logits(4, 0)
    for at in (0, 1, batch - 1):
        assert torch.equal(logits(batch, at), expected)


@pytest.fixture
def rounded(monkeypatch: pytest.MonkeyPatch) -> Decoder:
    """A model that is packed, with weights that bfloat16 holds."""
    if not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        pytest.skip("this CPU has no bfloat16 products")
    monkeypatch.setattr(stepper, "PACK_FROM", 0)
    model = Decoder(preset("1m", VOCAB, window=WINDOW, n_layer=2), seed=1).eval().requires_grad_(False)
    return model.to(torch.bfloat16)


def test_packed_bfloat16_weights_give_the_logits_of_the_same_weights_in_float32(rounded: Decoder) -> None:
    prompts = prompts_of([5, 9, 3], 5)
    found = {}
    for dtype in (torch.bfloat16, torch.float32):
        lean = LeanDecoder(rounded.to(dtype))
        cache, logits_BV = lean.prefill(prompts, WINDOW)
        after_BV = Stepper(lean, cache, 1)(torch.tensor([1, 2, 3, 1]))
        assert cache.kv_LBWED.dtype == after_BV.dtype == torch.float32
        found[dtype] = torch.cat((logits_BV, after_BV))
    apart = (found[torch.bfloat16] - found[torch.float32]).abs().max() / found[torch.float32].std()
    assert 0 < apart < 0.05


def test_packed_bfloat16_weights_read_prompts_longer_than_the_window(rounded: Decoder) -> None:
    requests = [GenerationRequest(list(range(n)), 0, 3, 0.0) for n in (5, 40)]
    together = Engine(rounded, Tokenizer.bytes()).generate(requests)
    assert [result.generated_tokens for result in together] == [3, 3]
