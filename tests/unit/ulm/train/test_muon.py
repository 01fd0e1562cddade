"""Muon: matrices take orthogonal steps, everything else AdamW's."""

import pytest
import torch

from ulm.config import preset
from ulm.model import Decoder
from ulm.train.muon import Muon, orthogonalise
from ulm.train.step import make_optimizer


@pytest.mark.parametrize("shape", [(3, 16, 16), (1, 8, 24), (2, 24, 8)])
def test_orthogonalised_matrices_have_singular_values_near_one_and_the_same_directions(
    shape: tuple[int, int, int],
) -> None:
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 7
    found = orthogonalise(matrices)
    values = torch.linalg.svdvals(found)
    assert values.min() > 0.3
    assert values.max() < 1.3
    u, _, vh = torch.linalg.svd(matrices, full_matrices=False)
    assert torch.allclose(
        found, u @ torch.diag_embed((u.mT @ found @ vh.mT).diagonal(dim1=-2, dim2=-1)) @ vh, atol=1e-3
    )


def test_three_steps_follow_the_definition() -> None:
    generator = torch.Generator().manual_seed(6)
    parameter = torch.nn.Parameter(torch.randn(8, 6, generator=generator))
    expected, average = parameter.detach().clone(), torch.zeros(8, 6)
    optimizer = Muon([(parameter, ())], [], lr=0.1, weight_decay=0.5, momentum=0.9)
    for _ in range(3):
        gradient = torch.randn(8, 6, generator=generator)
        parameter.grad = gradient.clone()
        before = parameter.detach().clone()
        optimizer.step()
        average = 0.9 * average + 0.1 * gradient
        u, _, vh = torch.linalg.svd(0.1 * gradient + 0.9 * average, full_matrices=False)
        change = parameter.detach() - before * (1 - 0.1 * 0.5)
        # Newton-Schulz leaves singular values between .7 and 1.2: near -u vh in direction and length.
        wanted = -0.1 * 0.2 * 8**0.5 * (u @ vh)
        assert torch.nn.functional.cosine_similarity(change.flatten(), wanted.flatten(), dim=0) > 0.95
        assert change.norm() / wanted.norm() == pytest.approx(1.0, abs=0.3)
    assert not torch.equal(parameter, expected)


def test_a_step_goes_downhill() -> None:
    parameter = torch.nn.Parameter(torch.zeros(8, 6))
    parameter.grad = torch.randn(8, 6, generator=torch.Generator().manual_seed(1))
    Muon([(parameter, (2, 5))], [], lr=1.0, weight_decay=0.0).step()
    parts = (tensor.tensor_split((2, 5)) for tensor in (parameter.detach(), parameter.grad))
    for change, gradient in zip(*parts, strict=True):
        assert (change * gradient).sum() < 0


def stepped(cuts: tuple[int, ...]) -> torch.Tensor:
    parameter = torch.nn.Parameter(torch.zeros(8, 6))
    parameter.grad = torch.randn(8, 6, generator=torch.Generator().manual_seed(1))
    Muon([(parameter, cuts)], [], lr=1.0, weight_decay=0.0).step()
    return parameter.detach()


def test_fused_projections_are_orthogonalised_part_by_part() -> None:
    parts = stepped((2, 5)).tensor_split((2, 5))
    for part in parts:
        size = 0.2 * max(part.shape) ** 0.5
        assert torch.linalg.svdvals(part / size).min() > 0.3
    assert not torch.allclose(stepped((2, 5)), stepped(()))


def test_weight_decay_shrinks_matrices_only() -> None:
    model = Decoder(preset("tiny", 300), seed=0)
    optimizer = make_optimizer(model, 0.1, 0.5, (0.9, 0.98), "muon")
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for name, parameter in model.named_parameters():
        factor = 1.0 if parameter.dim() == 1 or "embed" in name else 1 - 0.1 * 0.5
        assert torch.allclose(parameter, before[name] * factor, atol=1e-7), name


def test_others_take_the_steps_of_adamw() -> None:
    ours, theirs = (torch.nn.Parameter(torch.arange(5.0)) for _ in range(2))
    muon = Muon([], [ours], lr=1e-2, betas=(0.9, 0.98))
    adamw = torch.optim.AdamW([theirs], lr=1e-2, betas=(0.9, 0.98), weight_decay=0.0)
    generator = torch.Generator().manual_seed(3)
    for _ in range(4):
        ours.grad = torch.randn(5, generator=generator)
        theirs.grad = ours.grad.clone()
        muon.step()
        adamw.step()
    assert torch.allclose(ours, theirs, atol=1e-6)
