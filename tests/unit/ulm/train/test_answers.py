"""Training pretrained models on answers: what is learned from, and what it costs."""

from __future__ import annotations

import pytest
import torch
from fakes.hf_models import tiny_model, tiny_tokenizer
from fakes.training import alone

from ulm.train.answers import AnswerCollator, AnswerObjective
from ulm.train.step import make_optimizer


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


@pytest.mark.parametrize(("sparse", "base"), [(False, "llama"), (True, "llama"), (True, "gemma2")])
def test_the_loss_is_summed_over_every_token_that_is_learned(
    sparse: bool, base: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer, model = tiny_tokenizer(), tiny_model(base)
    if base == "gemma2":
        # The last hidden state is not all of its logits; the config is that of all tests, so it is put back.
        monkeypatch.setattr(model.config, "final_logit_softcapping", 0.5)
    rows = [{"prompt": "go", "answer": "1+23-4+"}, {"prompt": "at once", "answer": "5-6+"}]
    rows = [{**row, "end": False, "learn": "+-"} for row in rows]
    optimizer = make_optimizer(model, 0.1, 0.0, (0.9, 0.999))
    objective = AnswerObjective(
        model, optimizer, alone(), AnswerCollator(tokenizer), rows.__getitem__, batch_size=2, parts=1, sparse=sparse
    )
    (batch,), tokens = objective.batch(0)
    loss, _ = objective.loss(batch)
    wanted = []
    for row in rows:
        ids = tokenizer.encode(row["prompt"] + row["answer"])
        log_p = model(torch.tensor([ids])).logits[0].log_softmax(-1)
        wanted += [-log_p[at - 1, token] for at, token in enumerate(ids) if tokenizer.decode([token]) in "+-"]
    assert len(wanted) == tokens == 5
    assert torch.allclose(loss, torch.stack(wanted).sum(), atol=1e-4)
    loss.backward()
    assert model.model.embed_tokens.weight.grad.abs().sum() > 0
