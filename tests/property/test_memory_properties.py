"""Long-term memory: causal, bounded, equal however a text is read, and nothing at all before it was trained."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ulm.config import LTMConfig, ModelConfig
from ulm.decode.prompts import read_prompts
from ulm.decode.stepper import LeanDecoder, Stepper
from ulm.memory import CONTROLS
from ulm.memory.consolidation import ConsolidationConfig, Mass, Readers, consolidate
from ulm.memory.state import SHOWN_TOKENS, LTMState, Staged
from ulm.memory.stepping import MemoryStepper
from ulm.model import Decoder
from ulm.streaming import StreamState, read_chunk, read_document

pytestmark = pytest.mark.usefixtures("one_thread")

VOCAB = 31
SEGMENT = 8


def make_model(**memory: object) -> Decoder:
    """A model whose memory is open wide: little surprise is enough to write, and alike to read."""
    fields: dict[str, object] = {
        "layers": (0, 1), "n_head": 2, "head_size": 8, "capacity": 12, "segment": SEGMENT, "threshold_bits": 3.0,
        "similarity": 0.3, **memory,
    }  # fmt: skip
    ltm = LTMConfig(**fields)  # type: ignore[arg-type]
    config = ModelConfig(VOCAB, 3, n_head=4, n_kv_head=2, d_model=16, d_ff=24, head_size=8, window=12, ltm=ltm)
    model = Decoder(config, seed=1)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.3)
        for reader in model.ltm.readers:  # type: ignore[union-attr]
            reader.gate.fill_(1.0)  # type: ignore[union-attr,operator]
            reader.null.fill_(0.0)  # type: ignore[union-attr,operator]
    return model.eval().requires_grad_(False)


MODELS = {
    "age": make_model(),
    "use": make_model(eviction="use"),
    "surprisal": make_model(eviction="surprisal", write_budget=3),
    "adaptive": make_model(gamma=0.5),
    "overwrite": make_model(overwrite=0.9),
    "above": make_model(layers=(1, 2), segment=4),
}
kinds = st.sampled_from(sorted(MODELS))
texts = st.lists(st.integers(0, VOCAB - 1), min_size=1, max_size=60)


def decoded(model: Decoder, text: list[int], prompt: int) -> torch.Tensor:
    """Logits of a text of which `prompt` tokens are read at once and the rest step by step."""
    cache, logits, staged = read_prompts(model, [text[:prompt]], [None], slots=model.config.window)
    assert model.ltm is not None
    memory = MemoryStepper(model.ltm, staged)
    stepper = Stepper(LeanDecoder(model), cache, len(text), memory)
    later = [stepper(torch.full((4,), token))[0].clone() for token in text[prompt:]]
    return torch.stack([logits[0], *later])


STAGED = [field.name for field in dataclasses.fields(Staged)]


def items(state: LTMState) -> list[tuple[int, float, int]]:
    """What the first row holds: position, surprisal and number of reads of each item."""
    there = state.position_BM[0] >= 0
    return sorted(
        zip(
            state.position_BM[0, there].tolist(),
            [round(x, 2) for x in state.surprisal_BM[0, there].tolist()],
            state.reads_BM[0, there].tolist(),
            strict=True,
        )
    )


@settings(deadline=None, max_examples=60)
@given(kinds, texts, st.data())
def test_a_future_token_never_alters_a_past_logit_through_memory_too(
    kind: str, text: list[int], data: st.DataObject
) -> None:
    at = data.draw(st.integers(0, len(text) - 1))
    tail = data.draw(st.lists(st.integers(0, VOCAB - 1), min_size=len(text) - at, max_size=len(text) - at))
    first = read_document(MODELS[kind], torch.tensor([text])).all_logits()[0, :at]
    second = read_document(MODELS[kind], torch.tensor([text[:at] + tail])).all_logits()[0, :at]
    assert torch.equal(first, second)


@settings(deadline=None, max_examples=60)
@given(kinds, texts, st.data())
def test_decoding_step_by_step_equals_reading_the_whole_text(kind: str, text: list[int], data: st.DataObject) -> None:
    model = MODELS[kind]
    prompt = data.draw(st.integers(1, len(text)))
    whole = read_document(model, torch.tensor([text]))
    assert (decoded(model, text, prompt) - whole.all_logits()[0, prompt - 1 :]).abs().max() <= 1e-4


@settings(deadline=None, max_examples=40)
@given(kinds, texts)
def test_stepping_stores_what_reading_stores(kind: str, text: list[int]) -> None:
    model = MODELS[kind]
    text = text[: len(text) // SEGMENT * SEGMENT] or [1] * SEGMENT
    cache, _, staged = read_prompts(model, [text[:1]], [None], slots=model.config.window)
    assert model.ltm is not None
    stepper = Stepper(LeanDecoder(model), cache, len(text), MemoryStepper(model.ltm, staged))
    for token in text[1:]:
        stepper(torch.full((4,), token))
    whole = read_document(model, torch.tensor([text])).state.memory
    assert whole is not None
    stored, expected = items(staged.memory), items(whole)
    assert [item[::2] for item in stored] == [item[::2] for item in expected]
    assert [bits for _, bits, _ in stored] == pytest.approx([bits for _, bits, _ in expected], abs=0.02)
    assert staged.memory.tokens_BMN[0].tolist() == whole.tokens_BMN[0].tolist()


SLEEPY = make_model(slots=8, overwrite=0.95)


@settings(deadline=None, max_examples=40)
@given(texts, texts, st.sampled_from(["one", "members"]))
def test_slots_are_read_and_replaced_alike_in_reading_and_in_decoding(
    before: list[int], text: list[int], mass: Mass
) -> None:
    assert SLEEPY.ltm is not None
    past = read_document(SLEEPY, torch.tensor([(before * 3 * SEGMENT)[: 3 * SEGMENT]])).state.memory
    assert past is not None
    rules = ConsolidationConfig(keep=0.3, mass=mass, gate=False, same_key=0.5)
    memory, _ = consolidate(past, SLEEPY.ltm.config, Readers.of(SLEEPY.ltm), rules)
    start = dataclasses.replace(StreamState.empty(SLEEPY, 1), memory=memory)
    whole = read_document(SLEEPY, torch.tensor([text]), start)
    cache, logits, staged = read_prompts(SLEEPY, [text[:1]], [memory], slots=SLEEPY.config.window)
    stepper = Stepper(LeanDecoder(SLEEPY), cache, len(text), MemoryStepper(SLEEPY.ltm, staged))
    later = [stepper(torch.full((4,), token))[0].clone() for token in text[1:]]
    assert (torch.stack([logits[0], *later]) - whole.all_logits()[0]).abs().max() <= 1e-4
    if len(text) % SEGMENT == 0:
        assert whole.state.memory is not None
        assert staged.memory.members_BM[0].tolist() == whole.state.memory.members_BM[0].tolist()


@settings(deadline=None, max_examples=40)
@given(kinds, texts, st.lists(texts, min_size=1, max_size=4))
def test_a_row_gets_the_same_bits_in_any_batch(kind: str, text: list[int], others: list[list[int]]) -> None:
    model = MODELS[kind]
    _, logits, alone = read_prompts(model, [text], [None], slots=model.config.window)
    _, crowd, among = read_prompts(model, [*others, text], [None] * (len(others) + 1), slots=model.config.window)
    assert torch.equal(crowd[len(others)], logits[0])
    for name, tensor in alone.memory.tensors().items():
        assert torch.equal(getattr(among.memory, name)[len(others)], tensor[0]) or "recent" in name


@settings(deadline=None, max_examples=40)
@given(kinds, texts, texts)
def test_rows_do_not_see_each_other(kind: str, text: list[int], other: list[int]) -> None:
    model = MODELS[kind]
    width = max(len(text), len(other))
    ids = torch.tensor([row + [0] * (width - len(row)) for row in (text, other)])
    together = read_document(model, ids).all_logits()[0, : len(text)]
    alone = read_document(model, torch.tensor([text])).all_logits()[0]
    assert (together - alone).abs().max() <= 1e-4


@settings(deadline=None, max_examples=40)
@given(kinds, st.lists(texts, min_size=1, max_size=4))
def test_memory_never_holds_more_than_its_capacity(kind: str, parts: list[list[int]]) -> None:
    model = MODELS[kind]
    assert model.config.ltm is not None
    text = [token for part in parts for token in part]
    whole = read_document(model, torch.tensor([text]))
    assert whole.state.memory is not None
    assert whole.written_BS is not None
    assert int((whole.state.memory.position_BM[0] >= 0).sum()) <= min(
        model.config.ltm.capacity, int(whole.written_BS.sum())
    )


@settings(deadline=None, max_examples=40)
@given(kinds, texts)
def test_untrained_memory_changes_no_bit(kind: str, text: list[int]) -> None:
    model = MODELS[kind]
    untrained = Decoder(model.config, seed=1)
    untrained.load_state_dict(model.state_dict())
    with torch.no_grad():
        for reader in untrained.ltm.readers:  # type: ignore[union-attr]
            reader.gate.zero_()  # type: ignore[union-attr,operator]
    ids = torch.tensor([text])
    with_memory = read_document(untrained, ids).all_logits()
    without = read_document(untrained, ids, control="no_reads").all_logits()
    assert torch.equal(with_memory, without)


@settings(deadline=None, max_examples=40)
@given(kinds, texts, st.data())
def test_reading_in_parts_and_saving_between_them_changes_nothing(
    kind: str, text: list[int], data: st.DataObject
) -> None:
    model = MODELS[kind]
    chunk = model.config.chunk  # one segment, or three of the model `above`
    at = data.draw(st.integers(0, len(text) // chunk)) * chunk
    state = StreamState.empty(model, 1)
    whole = read_document(model, torch.tensor([text]), state).all_logits()
    parts = []
    if at:
        first = read_document(model, torch.tensor([text[:at]]), state)
        parts.append(first.all_logits())
        state = StreamState.from_tensors({name: tensor.clone() for name, tensor in first.state.tensors().items()})
    if at < len(text):
        parts.append(read_document(model, torch.tensor([text[at:]]), state).all_logits())
    assert torch.equal(torch.cat(parts, dim=1), whole)


@settings(deadline=None, max_examples=30)
@given(kinds, texts)
def test_the_quick_way_to_start_a_document_gives_the_same_logits(kind: str, text: list[int]) -> None:
    model = MODELS[kind]
    ids = torch.tensor([text])
    slow = read_document(model, ids, StreamState.empty(model, 1)).all_logits()
    assert (read_document(model, ids).all_logits() - slow).abs().max() <= 1e-4


@settings(deadline=None, max_examples=30)
@given(kinds, texts, texts)
def test_a_restarted_row_reads_as_if_nothing_had_been_before(kind: str, before: list[int], text: list[int]) -> None:
    model = MODELS[kind]
    before = before[: len(before) // SEGMENT * SEGMENT] or [1] * SEGMENT
    state = read_document(model, torch.tensor([before])).state.restarted(torch.tensor([True]))
    again = read_document(model, torch.tensor([text]), state)
    fresh = read_document(model, torch.tensor([text]), StreamState.empty(model, 1))
    assert torch.equal(again.all_logits(), fresh.all_logits())
    assert again.state.memory is not None
    assert fresh.state.memory is not None
    assert items(again.state.memory) == items(fresh.state.memory)


@pytest.mark.parametrize("control", CONTROLS)
def test_a_control_changes_what_memory_does_and_not_what_it_costs(control: str) -> None:
    model = MODELS["age"]
    ids = torch.randint(0, VOCAB, (1, 60), generator=torch.Generator().manual_seed(3))
    real = read_document(model, ids)
    null = read_document(model, ids, control=control, seed=1)  # type: ignore[arg-type]
    assert torch.equal(real.all_logits()[:, :SEGMENT], null.all_logits()[:, :SEGMENT])
    assert not torch.allclose(real.all_logits()[:, SEGMENT:], null.all_logits()[:, SEGMENT:], atol=1e-3)
    first = slice(0, SEGMENT)
    assert real.written_BS is not None
    assert null.written_BS is not None
    assert real.written_BS[:, first].sum() == null.written_BS[:, first].sum()


def test_random_writes_are_drawn_apart_for_every_row_and_depend_on_that_row_alone() -> None:
    model = MODELS["age"]
    assert model.ltm is not None
    S, rows = SEGMENT, 32
    generator = torch.Generator().manual_seed(5)
    state = LTMState.empty(model.config.ltm, rows)  # type: ignore[arg-type]
    half_BS = torch.where(torch.arange(S) < S // 2, 9.0, 0.0).expand(rows, S)  # as many are surprising in every row
    staged = Staged(
        keys_BSX=torch.zeros(rows, S, state.keys_BMX.shape[-1]),
        values_BSX=torch.zeros(rows, S, state.keys_BMX.shape[-1]),
        surprisal_BS=half_BS,
        tokens_BSN=torch.randint(0, VOCAB, (rows, S, SHOWN_TOKENS), generator=generator),
        writable_BS=torch.ones(rows, S, dtype=torch.bool),
        counts_B=torch.full((rows,), S),
        reads_BM=torch.zeros_like(state.reads_BM),
    )
    written_BS = model.ltm.place(state, staged, "random_writes", seed=1).written_BS
    assert (written_BS.sum(1) == S // 2).all()
    assert len(set(map(tuple, written_BS.tolist()))) > rows // 2
    assert written_BS.float().mean(0).sub(0.5).abs().max() < 0.35
    some = torch.tensor([7, 3])
    alone = dataclasses.replace(staged, **{name: getattr(staged, name)[some] for name in STAGED})
    assert torch.equal(model.ltm.place(state.select(some), alone, "random_writes", 1).written_BS, written_BS[some])


def test_padding_is_neither_written_nor_counted() -> None:
    model = MODELS["age"]
    text = torch.randint(0, VOCAB, (1, SEGMENT), generator=torch.Generator().manual_seed(4))
    state = read_document(model, text).state
    short = read_chunk(model, text, state, counts_B=torch.tensor([3]))
    assert short.written_BS is not None
    assert not short.written_BS[:, 3:].any()
    assert short.state.memory is not None
    assert short.state.memory.clock_B.tolist() == [SEGMENT + 3]


def test_more_tokens_than_a_chunk_are_refused() -> None:
    model = MODELS["age"]
    with pytest.raises(ValueError, match="more than a chunk of 8"):
        read_chunk(model, torch.zeros(1, 9, dtype=torch.long), StreamState.empty(model, 1))


def test_plain_reading_of_a_model_with_memory_is_refused() -> None:
    with pytest.raises(ValueError, match="would leave it out"):
        MODELS["age"](torch.zeros(1, 3, dtype=torch.long))


def test_config_survives_json() -> None:
    config = MODELS["surprisal"].config
    assert ModelConfig.from_dict(config.to_dict()) == config
    assert dataclasses.replace(config, ltm=None).to_dict()["ltm"] is None
