"""One training step on pairs: what is learned, what is left alone, what a failure leaves behind."""

import copy
from typing import Any

import pytest
import torch
from fakes.training import alone

from ulm.config import preset
from ulm.model import IGNORE, Decoder
from ulm.tokenizer import Tokenizer
from ulm.train import pairs as training
from ulm.train.pairs import PairObjective, collate, micro_batches
from ulm.train.step import StepReport, Worker, learning_rate, make_optimizer, train_step

pytestmark = pytest.mark.usefixtures("one_thread")

TEXTS = [("copy 7\n", "7\n"), ("copy 13 and 5\n", "13 5\n"), ("a\n", "b\n"), ("copy 2\n", "2 and some more words\n")]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.bytes()


def model_and_optimizer(tokenizer: Tokenizer, seed: int = 0, **changes: Any) -> tuple[Decoder, torch.optim.Optimizer]:
    model = Decoder(preset("tiny", tokenizer.vocab_size, **changes), seed=seed)
    return model, make_optimizer(model, 1e-2, 0.05, (0.9, 0.98))


class Given(PairObjective):
    """Learns the same batches at every step."""

    def __init__(
        self, model: Decoder, optimizer: torch.optim.Optimizer, batches: list[dict[str, torch.Tensor]]
    ) -> None:
        super().__init__(model, optimizer, alone(), Tokenizer.bytes(), TEXTS.__getitem__, batch_size=1)
        self.batches = batches

    def batch(self, step: int) -> tuple[list[dict[str, torch.Tensor]], int]:
        return self.batches, sum(int((batch["labels"] != IGNORE).sum()) for batch in self.batches)


def step(
    model: Decoder,
    optimizer: torch.optim.Optimizer,
    batches: list[dict[str, torch.Tensor]],
    rate: float = 1e-2,
    clip: float = 1.0,
) -> StepReport:
    return train_step(Given(model, optimizer, batches), 0, rate, clip)


def gradient(model: Decoder, batches: list[dict[str, torch.Tensor]]) -> torch.Tensor:
    """The gradient that a step takes, read off a plain gradient descent step of rate 1."""
    model = copy.deepcopy(model)
    before = [p.detach().clone() for p in model.parameters()]
    step(model, torch.optim.SGD(model.parameters(), lr=1.0), batches, 1.0, clip=1e9)
    return torch.cat([(b - p.detach()).flatten() for b, p in zip(before, model.parameters(), strict=True)])


def weights(model: Decoder) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def same_moments(a: dict[int, dict[str, torch.Tensor]], b: dict[int, dict[str, torch.Tensor]]) -> bool:
    return a.keys() == b.keys() and all(equal(a[index], b[index]) for index in a) and "exp_avg_sq" in a[0]


def train(model: Decoder, optimizer: torch.optim.Optimizer, tokenizer: Tokenizer, steps: int) -> list[float]:
    batches = micro_batches(TEXTS, tokenizer, 2)
    return [step(model, optimizer, batches).loss for _ in range(steps)]


# ---- batches


def test_labels_are_the_next_tokens_of_the_completion_and_nothing_else(tokenizer: Tokenizer) -> None:
    batch = collate(TEXTS, tokenizer)
    for ids, labels, (prompt, completion) in zip(batch["ids"], batch["labels"], TEXTS, strict=True):
        learned = labels != IGNORE
        assert labels[learned].tolist() == tokenizer.encode(completion)
        first = int(learned.nonzero()[0])
        assert ids[: first + 1].tolist() == tokenizer.encode(prompt)  # the last prompt token predicts the first label
        assert learned.nonzero().flatten().tolist() == list(range(first, first + len(tokenizer.encode(completion))))


def test_what_was_appended_is_read_and_not_learned(tokenizer: Tokenizer) -> None:
    pairs = [("p\n", "3*7=21 21+3=24:x\n"), ("q\n", "9\n")]
    batch = collate(pairs, tokenizer, [((4, 6), (12, 14)), ()])
    for ids, labels, (prompt, completion), learned in zip(
        batch["ids"], batch["labels"], pairs, ("3*7= 21+3=:x\n", "9\n"), strict=True
    ):
        text = tokenizer.encode(prompt + completion)
        assert ids[: len(text) - 1].tolist() == text[:-1]
        assert tokenizer.decode(labels[labels != IGNORE].tolist()) == learned
        at = (labels != IGNORE).nonzero().flatten().tolist()
        assert labels[at].tolist() == [text[place + 1] for place in at]


def test_short_rows_are_padded_on_the_right_with_the_padding_id(tokenizer: Tokenizer) -> None:
    batch = collate(TEXTS, tokenizer)
    assert batch["ids"].shape == batch["labels"].shape
    assert batch["ids"].shape[1] % training.LENGTH_MULTIPLE == 0
    text = tokenizer.encode("a\n") + tokenizer.encode("b\n")
    assert batch["ids"][2, : len(text) - 1].tolist() == text[:-1]
    assert batch["ids"][2, len(text) - 1 :].eq(tokenizer.pad_id).all()
    assert batch["labels"][2, len(text) - 1 :].eq(IGNORE).all()


def test_gradient_does_not_depend_on_padding(tokenizer: Tokenizer) -> None:
    model, _ = model_and_optimizer(tokenizer)
    batch = collate(TEXTS, tokenizer)
    pad = torch.nn.functional.pad
    wider = {
        "ids": pad(batch["ids"], (0, 24), value=tokenizer.pad_id),
        "labels": pad(batch["labels"], (0, 24), value=IGNORE),
    }
    torch.testing.assert_close(gradient(model, [batch]), gradient(model, [wider]), atol=1e-6, rtol=0)


@pytest.mark.parametrize("parts", [2, 3, 4, 9])
def test_micro_batches_have_the_gradient_of_one_batch(tokenizer: Tokenizer, parts: int) -> None:
    model, _ = model_and_optimizer(tokenizer)
    whole = gradient(model, [collate(TEXTS, tokenizer)])
    assert whole.abs().max() > 1e-3
    torch.testing.assert_close(gradient(model, micro_batches(TEXTS, tokenizer, parts)), whole, atol=1e-6, rtol=0)


def test_micro_batches_part_by_length_and_lose_nothing(tokenizer: Tokenizer) -> None:
    batches = micro_batches(TEXTS, tokenizer, 2)
    assert [len(batch["ids"]) for batch in batches] == [2, 2]
    assert batches[0]["ids"].shape[1] < batches[1]["ids"].shape[1]
    learned = sum(int((batch["labels"] != IGNORE).sum()) for batch in batches)
    assert learned == sum(len(tokenizer.encode(completion)) for _, completion in TEXTS)


# ---- schedule and step


def test_learning_rate_warms_up_to_its_peak_and_falls_to_its_floor() -> None:
    rates = [learning_rate(step, peak=2.0, warmup=10, steps=100) for step in range(100)]
    assert rates[0] == pytest.approx(0.2)
    assert rates[9] == rates[10] == pytest.approx(2.0)
    assert rates[:10] == sorted(rates[:10])
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[55] == pytest.approx(2.0 * (0.05 + 0.95 / 2))
    assert learning_rate(100, peak=2.0, warmup=10, steps=100) == pytest.approx(0.1)
    assert learning_rate(500, peak=2.0, warmup=10, steps=100) == pytest.approx(0.1)


def test_a_linear_schedule_starts_and_ends_at_zero() -> None:
    rates = [learning_rate(step, peak=2.0, warmup=4, steps=10, schedule="linear") for step in range(11)]
    assert rates[:5] == [0.0, 0.5, 1.0, 1.5, 2.0]
    assert rates[7] == pytest.approx(1.0)
    assert rates[10] == 0.0


def test_training_learns_to_copy(tokenizer: Tokenizer) -> None:
    model, optimizer = model_and_optimizer(tokenizer)
    losses = train(model, optimizer, tokenizer, 40)
    assert losses[0] > 4.0
    assert losses[-1] < 0.5


def test_loss_is_the_mean_over_learned_tokens(tokenizer: Tokenizer) -> None:
    model, optimizer = model_and_optimizer(tokenizer)
    batch = collate(TEXTS, tokenizer)
    flat = model(batch["ids"]).flatten(0, 1)
    mean = torch.nn.functional.cross_entropy(flat, batch["labels"].flatten(), ignore_index=IGNORE)
    stats = step(model, optimizer, micro_batches(TEXTS, tokenizer, 3))
    assert stats.loss == pytest.approx(mean.item(), abs=1e-5)
    assert stats.tokens == int((batch["labels"] != IGNORE).sum())


def test_gradient_is_clipped_and_its_norm_reported_before(tokenizer: Tokenizer) -> None:
    model, _ = model_and_optimizer(tokenizer)
    norm = float(gradient(model, [collate(TEXTS, tokenizer)]).norm())
    before = weights(model)
    stats = step(model, torch.optim.SGD(model.parameters(), lr=1.0), [collate(TEXTS, tokenizer)], 1.0, clip=norm / 10)
    moved = sum(float((model.state_dict()[name] - before[name]).square().sum()) for name, _ in model.named_parameters())
    assert stats.grad_norm == pytest.approx(norm, rel=1e-4)
    assert moved**0.5 == pytest.approx(norm / 10, rel=1e-3)


def test_a_loss_that_is_no_number_stops_training_and_leaves_the_weights(tokenizer: Tokenizer) -> None:
    model, optimizer = model_and_optimizer(tokenizer)
    train(model, optimizer, tokenizer, 2)
    before, moments = weights(model), copy.deepcopy(optimizer.state_dict()["state"])
    poison = model.embed.register_forward_hook(lambda module, ids, out: out * float("nan"))
    with pytest.raises(FloatingPointError, match="loss is nan"):
        step(model, optimizer, micro_batches(TEXTS, tokenizer, 2))
    assert equal(weights(model), before)
    assert same_moments(moments, optimizer.state_dict()["state"])
    poison.remove()
    assert train(model, optimizer, tokenizer, 1)[0] > 0  # and it can go on


def test_a_gradient_that_is_no_number_stops_training_and_leaves_the_weights(tokenizer: Tokenizer) -> None:
    model, optimizer = model_and_optimizer(tokenizer)
    before = weights(model)
    model.norm.register_hook(lambda gradient: gradient * float("inf"))  # the loss stays finite
    with pytest.raises(FloatingPointError, match="gradient norm"):
        step(model, optimizer, micro_batches(TEXTS, tokenizer, 2))
    assert equal(weights(model), before)


def test_workers_take_the_parts_of_a_batch_that_follows_from_the_step_alone(tokenizer: Tokenizer) -> None:
    model, optimizer = model_and_optimizer(tokenizer)

    def batch(rank: int, size: int) -> dict[str, torch.Tensor]:
        worker = Worker(rank, size, torch.device("cpu"), lambda record: None)
        if size > 1:  # only the data is looked at
            worker = type("Lone", (Worker,), {"wrap": lambda self, module: module})(rank, size, worker.device, print)
        of = PairObjective(model, optimizer, worker, tokenizer, lambda n: ("n ", f"{n}\n"), batch_size=4)
        return of.batch(3)[0][0]

    whole = batch(0, 1)
    assert [tokenizer.decode(row[row != IGNORE].tolist()) for row in whole["labels"]] == [
        "12\n",
        "13\n",
        "14\n",
        "15\n",
    ]
    assert torch.equal(torch.cat([batch(rank, 2)["labels"] for rank in (0, 1)]), whole["labels"])
    with pytest.raises(ValueError, match="batch_size 4 cannot be shared evenly by 3 workers"):
        batch(0, 3)


def test_a_group_of_parameters_may_have_a_rate_of_its_own(tokenizer: Tokenizer) -> None:
    model, _ = model_and_optimizer(tokenizer)
    moved, still = list(model.parameters())[:2], list(model.parameters())[2:]
    optimizer = torch.optim.SGD([{"params": moved}, {"params": still, "lr_factor": 0.0}], lr=1.0)
    before = weights(model)
    step(model, optimizer, [collate(TEXTS, tokenizer)], 0.1)
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed
    assert changed <= {name for name, p in model.named_parameters() if any(p is one for one in moved)}


def test_weight_decay_leaves_norms_and_embeddings_alone(tokenizer: Tokenizer) -> None:
    model, optimizer = model_and_optimizer(tokenizer)
    decayed = {id(p) for group in optimizer.param_groups if group["weight_decay"] for p in group["params"]}
    names = {name for name, p in model.named_parameters() if id(p) in decayed}
    assert names
    assert not any("embed" in name or "norm" in name for name in names)
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(list(model.parameters()))
