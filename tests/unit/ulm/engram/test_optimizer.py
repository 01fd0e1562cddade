"""Training an Engram: how tables move, and that it learns."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from fakes.hf_models import tiny_model, tiny_tokenizer
from fakes.training import alone

from ulm.engram import EngramConfig, EngramModel, add_engram
from ulm.engram.optimizer import BASE_FOLDER, EngramAdam, engram_optimizer, save_trained
from ulm.train.answers import AnswerCollator, AnswerObjective
from ulm.train.step import learning_rate, train_step

pytestmark = pytest.mark.thorough

CONFIG = EngramConfig(layers=(1,), heads=2, rows=499, head_size=8, exact=False)


def test_dense_steps_equal_adamw_and_rows_that_were_not_read_stay() -> None:
    torch.manual_seed(0)
    ours, theirs = torch.nn.Linear(5, 4), torch.nn.Linear(5, 4)
    theirs.load_state_dict(ours.state_dict())
    table = torch.nn.Embedding(10, 3, sparse=True)
    before = table.weight.detach().clone()
    ours_optimizer = EngramAdam([*ours.parameters(), *table.parameters()], lr=0.01, weight_decay=0.1)
    theirs_optimizer = torch.optim.AdamW(theirs.parameters(), lr=0.01, weight_decay=0.1)
    x = torch.randn(7, 5)
    for _ in range(5):
        for model, optimizer in ((ours, ours_optimizer), (theirs, theirs_optimizer)):
            optimizer.zero_grad()
            (model(x) ** 2).sum().backward()
            if model is ours:
                table(torch.tensor([2, 2, 7])).sum().backward()
            optimizer.step()
    assert torch.allclose(ours.weight, theirs.weight, atol=1e-6)
    moved = (table.weight != before).any(1)
    assert moved.nonzero()[:, 0].tolist() == [2, 7]
    # Adam divides by the gradient's size: both rows moved lr per step, though one gradient was twice the other.
    assert torch.allclose(before[moved] - table.weight[moved], torch.full((2, 3), 0.05), atol=1e-4)


def test_a_row_read_for_the_first_time_late_moves_as_if_it_were_early() -> None:
    table = torch.nn.Embedding(4, 2, sparse=True)
    optimizer = EngramAdam(table.parameters(), lr=0.01)
    for step in range(50):
        optimizer.zero_grad()
        before = table.weight[3].detach().clone()
        table(torch.tensor([0 if step < 49 else 3])).sum().backward()
        optimizer.step()
    assert torch.allclose(before - table.weight[3], torch.full((2,), 0.01), atol=1e-6)


def trained(tmp_path: Path, records: list[dict[str, str]], freeze_base: bool = True) -> EngramModel:
    torch.manual_seed(0)
    model = add_engram(tiny_model(), CONFIG, tiny_tokenizer())
    if not freeze_base:
        model.base_model.requires_grad_(True)
    order = [n for _ in range(200) for n in torch.randperm(len(records)).tolist()]
    objective = AnswerObjective(
        model,
        engram_optimizer(model, 1e-2),
        alone(),
        AnswerCollator(tiny_tokenizer()),
        lambda number: records[order[number]],
        batch_size=len(records),
    )
    for step in range(200):
        train_step(objective, step, learning_rate(step, peak=1e-2, warmup=0, steps=200, schedule="linear"))
    save_trained(model.eval(), tmp_path)
    return model


def answers(model: EngramModel, records: list[dict[str, str]]) -> list[str]:
    found = []
    for record in records:
        query = model.vocabulary.tokenizer(record["prompt"], return_tensors="pt")
        with torch.no_grad():
            out = model.generate(**query, max_new_tokens=8, do_sample=False)
        found.append(model.vocabulary.tokenizer.decode(out[0, query["input_ids"].shape[1] :]))
    return found


def test_answers_are_learned_with_the_base_frozen_and_gone_when_the_table_is_shuffled(tmp_path: Path) -> None:
    records = [{"prompt": f"{a}{b}=", "answer": f"{b}{a}{a}"} for a in "abcd" for b in "wxyz"]
    base = {name: p.detach().clone() for name, p in tiny_model().named_parameters()}
    model = trained(tmp_path, records)
    assert all(torch.equal(p, base[name]) for name, p in model.base_model.named_parameters())
    right = [record["answer"] + "<eot>" for record in records]
    assert answers(model, records) == right
    again = EngramModel.from_pretrained(tiny_model(), tmp_path, tiny_tokenizer())
    assert answers(again, records) == right
    with torch.no_grad():
        table = again.adapter.tables.layers[0].table.weight
        used = table.abs().sum(1).nonzero()[:, 0]
        table[used] = table[used[torch.randperm(len(used), generator=torch.Generator().manual_seed(0))]]
    assert sum(a == b for a, b in zip(answers(again, records), right, strict=True)) <= 2


def test_the_base_is_trained_when_asked_for(tmp_path: Path) -> None:
    model = trained(tmp_path, [{"prompt": "a", "answer": "b"}] * 8, freeze_base=False)
    before = tiny_model().state_dict()
    assert (tmp_path / BASE_FOLDER / "config.json").is_file()
    assert any(not torch.equal(p, before[name]) for name, p in model.base_model.state_dict().items())
