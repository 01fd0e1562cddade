"""Training an Engram: what is learned from, how tables move, and that it learns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from fakes.hf_models import tiny_model, tiny_tokenizer

from ulm.engram import AnswerCollator, AnswerTrainer, EngramConfig, EngramModel, EngramTrainer, add_engram
from ulm.engram.trainer import EngramAdam, SparseAnswerTrainer

pytest.importorskip("accelerate", reason="transformers' Trainer needs accelerate: pip install 'ulm-swarm[hf]'")
from transformers import TrainingArguments

CONFIG = EngramConfig(layers=(1,), heads=2, rows=499, head_size=8, exact=False)


def test_only_answers_have_labels() -> None:
    tokenizer = tiny_tokenizer()
    batch = AnswerCollator(tokenizer)([{"prompt": "a?", "answer": " bc"}, {"prompt": "long one?", "answer": " d"}])
    labels = [[int(i) for i in row if i >= 0] for row in batch["labels"]]
    assert [tokenizer.decode(row) for row in labels] == [" bc<eot>", " d<eot>"]
    assert batch["attention_mask"].sum(1).tolist() == [6, 12]
    assert (batch["input_ids"] == 0).sum() == 6
    text = AnswerCollator(tokenizer)([{"prompt": "once", "answer": " upon", "end": False}])
    assert tokenizer.decode(text["labels"][text["labels"] >= 0]) == " upon"
    marks = AnswerCollator(tokenizer)([{"prompt": "go", "answer": "1+23-4+", "end": False, "learn": "+-"}])
    assert tokenizer.decode(marks["labels"][marks["labels"] >= 0]) == "+-+"
    with pytest.raises(ValueError, match="must not be empty"):
        AnswerCollator(tokenizer)([{"prompt": "a", "answer": ""}])
    with pytest.raises(ValueError, match="14 tokens, at most 8"):
        AnswerCollator(tokenizer, max_length=8)([{"prompt": "a" * 10, "answer": "bcd"}])


@pytest.mark.parametrize(
    ("kind", "base"), [(AnswerTrainer, "llama"), (SparseAnswerTrainer, "llama"), (SparseAnswerTrainer, "gemma2")]
)
def test_the_loss_is_the_mean_over_every_token_that_is_learned(
    kind: type[AnswerTrainer], base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer, model = tiny_tokenizer(), tiny_model(base)
    if base == "gemma2":
        # The last hidden state is not all of its logits; the config is that of all tests, so it is put back.
        monkeypatch.setattr(model.config, "final_logit_softcapping", 0.5)
    rows = [{"prompt": "go", "answer": "1+23-4+"}, {"prompt": "at once", "answer": "5-6+"}]
    rows = [{**row, "end": False, "learn": "+-"} for row in rows]
    batch = AnswerCollator(tokenizer)(rows)
    arguments = TrainingArguments(output_dir=str(tmp_path), use_cpu=True, report_to=[], remove_unused_columns=False)
    loss = kind(model, arguments, train_dataset=rows).compute_loss(model, batch)
    wanted = []
    for row in rows:
        ids = tokenizer.encode(row["prompt"] + row["answer"])
        log_p = model(torch.tensor([ids])).logits[0].log_softmax(-1)
        wanted += [-log_p[at - 1, token] for at, token in enumerate(ids) if tokenizer.decode([token]) in "+-"]
    assert len(wanted) == 5
    assert torch.allclose(loss, torch.stack(wanted).mean(), atol=1e-5)
    loss.backward()
    assert model.model.embed_tokens.weight.grad.abs().sum() > 0


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


def trained(tmp_path: Path, records: list[dict[str, str]], **options: Any) -> EngramModel:
    torch.manual_seed(0)
    model = add_engram(tiny_model(), CONFIG, tiny_tokenizer())
    arguments = TrainingArguments(
        output_dir=str(tmp_path), max_steps=200, per_device_train_batch_size=16, learning_rate=1e-2, report_to=[],
        save_strategy="no", logging_strategy="no", use_cpu=True, seed=0, disable_tqdm=True,
    )  # fmt: skip
    trainer = EngramTrainer(model, arguments, train_dataset=records, **options)
    trainer.train()
    trainer.save_model()
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
        table = again.adapter.tables[0].table.weight
        used = table.abs().sum(1).nonzero()[:, 0]
        table[used] = table[used[torch.randperm(len(used), generator=torch.Generator().manual_seed(0))]]
    assert sum(a == b for a, b in zip(answers(again, records), right, strict=True)) <= 2


def test_the_base_is_trained_when_asked_for(tmp_path: Path) -> None:
    model = trained(tmp_path, [{"prompt": "a", "answer": "b"}] * 8, freeze_base=False)
    before = tiny_model().state_dict()
    assert any(not torch.equal(p, before[name]) for name, p in model.base_model.state_dict().items())
