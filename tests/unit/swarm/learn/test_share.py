"""Deltas put together: what they add to weights is averaged or summed, not their factors."""

from __future__ import annotations

import torch
from torch import Tensor

from swarm.learn.share import cut, together
from ulm.delta import Delta


def delta(seed: int, rank: int = 2, ids: tuple[int, ...] = (1, 4)) -> Delta:
    generator = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    return Delta({"w": (random(rank, 6), random(5, rank))}, torch.tensor(ids), random(len(ids), 3), "base")


def test_the_mean_is_of_products_where_rank_allows() -> None:
    parts = [delta(seed) for seed in range(2)]
    joined = together(parts, [None, None], "mean", 4)
    wanted = sum(part.added()["w"] for part in parts) / 2
    assert torch.allclose(joined.added()["w"], wanted, atol=1e-5)
    assert torch.allclose(together(parts, [None, None], "concat", 4).added()["w"], 2 * wanted, atol=1e-5)


def test_the_sum_is_of_what_was_added_since() -> None:
    before, parts = delta(7), [delta(seed) for seed in range(2)]
    was, came = before.added()["w"], [part.added()["w"] for part in parts]
    joined = together(parts, [before, before], "concat", 6)
    assert torch.allclose(joined.added()["w"], was + sum(part - was for part in came), atol=1e-5)
    assert torch.allclose(joined.rows_EC, sum(part.rows_EC for part in parts) - before.rows_EC, atol=1e-5)
    same = together([before, before], [before, before], "concat", 2)
    assert torch.allclose(same.added()["w"], was, atol=1e-5)


def test_a_rate_goes_further_than_the_mean_and_no_further_than_the_sum() -> None:
    before, parts = delta(7), [delta(seed, ids=(1, 4 + seed)) for seed in range(2)]
    befores: list[Delta | None] = [before, before]

    def joined(mode: str, rate: float) -> Delta:
        return together(parts, befores, mode, 6, rate)

    was, mean = before.added()["w"], joined("mean", 1.0).added()["w"]
    assert torch.allclose(joined("mean", 1.5).added()["w"], was + 1.5 * (mean - was), atol=1e-5)
    for one, other in ((joined("mean", 9.0), joined("concat", 1.0)), (joined("concat", 2.0), joined("concat", 1.0))):
        assert torch.allclose(one.added()["w"], other.added()["w"], atol=1e-5)
        assert torch.allclose(one.rows_EC, other.rows_EC, atol=1e-5)


def test_where_one_agent_alone_has_inputs_it_alone_counts() -> None:
    parts = [delta(seed) for seed in range(2)]
    met = [torch.diag(torch.tensor(some, dtype=torch.float64)) for some in ([9, 9, 9, 0, 0, 0], [0, 0, 9, 9, 9, 9])]
    found = together(parts, [None, None], "regmean", 6, 1.0, [{"w": one} for one in met]).added()["w"]
    one, other = (part.added()["w"] for part in parts)
    assert torch.allclose(found[:, 2], (one + other)[:, 2] / 2, atol=1e-5)
    for column, own, alien in ((0, one, other), (5, other, one)):
        plain = (own + alien)[:, column] / 2
        assert (found[:, column] - own[:, column]).norm() < 0.3 * (plain - own[:, column]).norm()


def test_where_all_meet_the_same_it_is_the_mean() -> None:
    before, parts = delta(7), [delta(seed) for seed in range(2)]
    met = torch.randn(9, 6, generator=torch.Generator().manual_seed(1)).double()
    arguments = parts, [before, before]
    found = together(*arguments, "regmean", 6, 1.5, [{"w": met.T @ met}] * 2)
    plain = together(*arguments, "mean", 6, 1.5)
    assert torch.allclose(found.added()["w"], plain.added()["w"], atol=1e-4)
    assert torch.equal(found.rows_EC, plain.rows_EC)


def test_of_less_rank_it_is_the_nearest_product() -> None:
    parts = [delta(seed) for seed in range(3)]
    wanted = sum(part.added()["w"] for part in parts) / 3
    left = torch.linalg.matrix_norm(wanted - together(parts, [None] * 3, "mean", 2).added()["w"])
    values = torch.linalg.svdvals(wanted)
    assert torch.isclose(left, values[2:].square().sum().sqrt(), atol=1e-5)


def test_rows_are_averaged_over_the_deltas_that_have_them() -> None:
    one, two = delta(0, ids=(1, 4)), delta(1, ids=(4, 7))
    joined = together([one, two], [None, None], "mean", 2)
    assert joined.ids_E.tolist() == [1, 4, 7]
    assert torch.equal(joined.rows_EC[0], one.rows_EC[0])
    assert torch.allclose(joined.rows_EC[1], (one.rows_EC[1] + two.rows_EC[0]) / 2)


def test_factors_are_filled_up_to_their_rank() -> None:
    a_RK, b_NR = cut(torch.ones(1, 6), torch.ones(5, 1), 3)
    assert (a_RK.shape, b_NR.shape) == ((3, 6), (5, 3))
    assert torch.allclose(b_NR @ a_RK, torch.ones(5, 6), atol=1e-6)
