"""What one agent learned, all can have: deltas put together, of products and not of factors.

The mean of B A over agents is not the product of the mean of B and the mean of A (FedEx-LoRA, arXiv:2410.09432). So
factors are stacked, which is exact, and cut back to the rank of one delta by a singular value decomposition of the
stack (LoRA soups, arXiv:2410.13025, concatenate likewise). What comes of it is tested as any step is, on all agents.

`regmean` (Jin et al., arXiv:2212.09849) is the linear map that comes nearest to what each agent's own does with the
inputs that the agent meets: where one agent alone has inputs, in directions of new words, say, it alone counts.

Axes: K inputs and N outputs of a layer, R rank, C width of the model, E chosen tokens.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from swarm.agents.delta import delta_path
from swarm.config.experiment import ExperimentConfig
from swarm.learn.accept import Outcome, StepTask, held_delta, tested, tried
from swarm.learn.base import agents_base
from swarm.learn.samples import Samples, all_of
from swarm.learn.step import Learned
from ulm.checkpoint import Checkpoint
from ulm.delta import Delta
from ulm.model import IGNORE
from ulm.train.pairs import collate
from worlds.seeds import DerivedRandom

READ = 256
"""Texts of each agent that `regmean` reads."""

EVEN = 0.3
"""How much all directions count alike in `regmean`, beside what is met in them (piloted, experiments/LOG.md)."""

Inputs = Mapping[str, Tensor]
"""Name of a weight -> sum of outer products (K, K) of what its layer meets."""


@dataclass(frozen=True)
class ShareTask:
    """Deltas to be put together, and all that the test of the result depends on.

    Attributes:
        test: names what the result is tested on, but for samples; its learner is the team.
        learned: sha256 of what each agent has learned, in order.
        befores: sha256 of what each had before the round, "" for none.
        samples: what each has learned from.
    """

    test: StepTask
    learned: tuple[str, ...]
    befores: tuple[str, ...]
    samples: tuple[Samples, ...]

    @property
    def title(self) -> str:
        """What it is, for people."""
        return "sharing of what agents learned"

    @property
    def config(self) -> ExperimentConfig:
        """The experiment."""
        return self.test.config

    def compute(self) -> Outcome:
        """Put them together and test the result, going half as far where it fails; on the CPU with one thread."""
        torch.set_num_threads(1)
        task, settings = self.test, self.test.settings
        found = [Delta.from_bytes(delta_path(task.memory, name).read_bytes()) for name in self.learned]
        befores = [held_delta(task.memory, name) for name in self.befores]
        base = agents_base(task.config, task.base_dir, task.base_sha256)
        samples = base.samples(all_of(self.samples))

        inputs, read = [], 0
        if settings.share == "regmean":
            for delta, own in zip(found, self.samples, strict=True):
                met, tokens = inputs_of(base.checkpoint, delta, base.samples(own), task.seed)
                inputs.append(met)
                read += tokens

        def take(size: float) -> Learned:
            rate = size * settings.share_rate
            return Learned(together(found, befores, settings.share, settings.delta.rank, rate, inputs))

        return tried(take, lambda delta: tested(task, base, delta, samples), task.memory, settings.test.on, read)


def together(
    deltas: Sequence[Delta],
    befores: Sequence[Delta | None],
    mode: str,
    rank: int,
    rate: float = 1.0,
    inputs: Sequence[Inputs] = (),
) -> Delta:
    """Return one delta that stands for several: what they were before, on average, and to that what all have added.

    Args:
        deltas: of one base, in a fixed order.
        befores: what each was before the round; None for an empty one.
        mode: `mean`, `concat` (the sum) or `regmean` of what was added to weights. Rows of the embedding are summed by
            `concat`; the others take the mean over the deltas that changed them.
        rank: of the result.
        rate: multiplies what was added, up to the sum (the server's learning rate of Reddi et al., arXiv:2003.00295).
        inputs: for `regmean` what the layers of each meet.
    """
    count = len(deltas)
    size = min(rate, 1.0) if mode == "concat" else min(rate, count) / count
    terms = [(delta, size) for delta in deltas]
    terms += [(before, 1 / count - size) for before in befores if before is not None and size * count != 1]
    factors = {}
    for name in sorted({name for delta, _ in terms for name in delta.factors}):
        if mode == "regmean":
            factors[name] = cut(*_nearest(name, deltas, befores, rate, inputs), rank)
        else:
            pairs = [(*delta.factors[name], weight) for delta, weight in terms if name in delta.factors]
            factors[name] = cut(torch.cat([a for a, _, _ in pairs]), torch.cat([w * b for _, b, w in pairs], 1), rank)
    width = deltas[0].rows_EC.shape[1]
    added: dict[int, list[Tensor]] = {}
    rows: dict[int, Tensor] = {}
    for delta, before in zip(deltas, befores, strict=True):
        was = _rows(before) if before is not None else {}
        for token, row_C in _rows(delta).items():
            old_C = was.get(token, torch.zeros(width))
            rows[token] = rows.get(token, torch.zeros(width)) + old_C / count
            if not torch.equal(row_C, old_C):
                added.setdefault(token, []).append(row_C - old_C)
    for token, some in added.items():
        share = size if mode == "concat" else min(rate, len(some)) / len(some)
        rows[token] = rows[token] + share * torch.stack(some).sum(0)
    ids = sorted(rows)
    rows_EC = torch.stack([rows[token] for token in ids]) if ids else deltas[0].rows_EC[:0]
    return Delta(factors, torch.tensor(ids, dtype=torch.int64), rows_EC, deltas[0].base)


def _nearest(
    name: str, deltas: Sequence[Delta], befores: Sequence[Delta | None], rate: float, inputs: Sequence[Inputs]
) -> tuple[Tensor, Tensor]:
    """Return factors, of full rank, of the mean that is weighed by inputs; see `together`."""
    count = len(deltas)
    was = [_product(before, name) if before is not None else torch.zeros(()) for before in befores]
    added = [_product(delta, name) - old for delta, old in zip(deltas, was, strict=True)]
    total_KK = sum((met[name] for met in inputs), torch.zeros(()))
    even_KK = EVEN * total_KK.diagonal().mean() * torch.eye(len(total_KK), dtype=torch.float64)
    right_NK = sum(
        (part_NK @ (met[name] + even_KK / count) for part_NK, met in zip(added, inputs, strict=True)), torch.zeros(())
    )
    step_NK = torch.linalg.solve(total_KK + even_KK, right_NK.T).T  # both are symmetric
    found_NK = sum(was, torch.zeros(())) / count + min(rate, count) * step_NK
    return torch.eye(found_NK.shape[1], dtype=torch.float64), found_NK


def _product(delta: Delta, name: str) -> Tensor:
    a_RK, b_NR = delta.factors[name]
    return b_NR.double() @ a_RK.double()


@torch.no_grad()
def inputs_of(checkpoint: Checkpoint, delta: Delta, samples: Samples, seed: int) -> tuple[Inputs, int]:
    """Return what the layers of a model with a delta meet in texts that were learned, and the tokens that were read.

    Args:
        checkpoint: the base.
        delta: beside it.
        samples: `READ` of them are read.
        seed: chooses which.
    """
    some = [sample for kind in ("own", "hindsight") for sample in samples.kinds.get(kind, ())]
    some = DerivedRandom(seed, "inputs").sample(some, min(READ, len(some)))
    model, found = delta.applied(checkpoint.model), dict[str, Tensor]()
    tensors = collate([sample[:2] for sample in some], checkpoint.tokenizer, [sample.inlined for sample in some])

    def keep(name: str) -> Callable[[nn.Module, tuple[Tensor]], None]:
        def hook(_: nn.Module, args: tuple[Tensor]) -> None:
            x_NK = args[0].flatten(0, -2).double()
            found[name] = x_NK.T @ x_NK

        return hook

    layers = {name: model.get_submodule(name.removesuffix(".weight")) for name in delta.factors}
    hooks = [layer.register_forward_pre_hook(keep(name)) for name, layer in layers.items()]
    model(tensors["ids"], tensors["labels"] != IGNORE)
    for hook in hooks:
        hook.remove()
    return found, tensors["ids"].numel()


def _rows(delta: Delta) -> dict[int, Tensor]:
    """Return token -> what is added to its row."""
    return dict(zip(delta.ids_E.tolist(), delta.rows_EC, strict=True))


def cut(a_RK: Tensor, b_NR: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Return factors of the given rank whose product is the nearest to B A; smaller ones are filled up with zeros."""
    left_NR, upper_RR = torch.linalg.qr(b_NR.double())
    right_KR, lower_RR = torch.linalg.qr(a_RK.double().T)
    u_RR, s_R, v_RR = torch.linalg.svd(upper_RR @ lower_RR.T)
    keep = min(rank, len(s_R))
    # Signs of singular vectors are free: the largest entry of each on the left is made positive.
    u_RQ, v_QR = u_RR[:, :keep], v_RR[:keep]
    sign_Q = u_RQ.gather(0, u_RQ.abs().argmax(0, keepdim=True)).sign()[0]
    root_Q = s_R[:keep].sqrt()
    b_NQ = left_NR @ (u_RQ * sign_Q * root_Q)
    a_QK = (v_QR * (sign_Q * root_Q)[:, None]) @ right_KR.T
    missing = rank - keep
    a_QK = torch.cat((a_QK, torch.zeros(missing, a_QK.shape[1], dtype=torch.float64)))
    b_NQ = torch.cat((b_NQ, torch.zeros(b_NQ.shape[0], missing, dtype=torch.float64)), 1)
    return a_QK.float().contiguous(), b_NQ.float().contiguous()
