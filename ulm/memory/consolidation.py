"""Consolidation of a long-term memory: what recurs becomes a slot, what was contradicted goes, old items shrink.

- Items stand for what was met lately, each as it was written (episodic memory). Slots stand for what is kept of older
  ones (semantic memory): a key, a value, the logarithm of a mass, and how many items it stands for. They take eight
  bits a number (`ulm.memory.state.rounded`), about three tenths of an item's bytes.
- Items with the same key that stand for the same token become one slot. Where tokens differ the latest one is right;
  values of several items are never averaged.
- The questions are keys of items: an item's key is what was asked at the position where it was written, and its value
  is what came then. So later items show what older ones are good for, and whether they were right.
- Masses may be fitted in closed form, so that what is left is read as all of it was (Attention Matching,
  arXiv:2602.16284). Slots beyond the budget go by age, or by what it costs to lose them.
- Nothing is taken on trust: items are merged only if slots then answer as many questions of later items right as
  without it, when the oldest are forgotten instead (forced consolidation ends below no memory at all:
  arXiv:2605.12978). What masses or costs were fitted to is no part of that test.
- A pure function of its arguments: no randomness, ties are settled by position.

Axes: M places, X layers x heads x head size, G layers x heads, D head size, Q questions, K slots, T token ids.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from ulm.config import LTMConfig
from ulm.memory.ltm import LTM
from ulm.memory.state import SHOWN_TOKENS, LTMState, by_head, rounded

Mass = Literal["one", "members", "fitted"]
Prune = Literal["age", "cost"]


@dataclass(frozen=True, slots=True)
class ConsolidationConfig:
    """How a memory is consolidated.

    Attributes:
        at: share of the capacity for items at which it happens.
        keep: share of the items that stay as they are, the latest ones.
        same_key: cosine above which two keys are the same, with every layer and head.
        recurring: items that a slot must stand for where items are merged; 1 turns every old item into a slot.
        mass: `one` reads a slot as one item, `members` as so many; `fitted` as far as the questions say so.
        prune: what is lost first over the budget: what was confirmed longest ago (`age`), or what costs least on the
            questions (`cost`).
        gate: whether merging has to be no worse than leaving it; False forces it, a control.

    Raises:
        ValueError: a value is out of range.
    """

    at: float = 0.9
    keep: float = 0.5
    same_key: float = 0.95
    recurring: int = 1
    mass: Mass = "members"
    prune: Prune = "age"
    gate: bool = True

    def __post_init__(self) -> None:
        for name, least in (("at", 0), ("keep", 0), ("same_key", -1)):
            value = getattr(self, name)
            if not isinstance(value, int | float) or not least < value <= 1:
                raise ValueError(f"consolidate: {name} must be a number above {least} and at most 1, got {value!r}")
        if not isinstance(self.recurring, int) or self.recurring < 1:
            raise ValueError(f"consolidate: recurring must be a whole number of at least 1, got {self.recurring!r}")
        choices: dict[str, tuple[Any, ...]] = {"mass": get_args(Mass), "prune": get_args(Prune), "gate": (True, False)}
        for name, known in choices.items():
            if getattr(self, name) not in known:
                told = ", ".join(map(str, known))
                raise ValueError(f"consolidate: {name} must be one of {told}, got {getattr(self, name)!r}")

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> ConsolidationConfig:
        """Build from JSON data.

        Raises:
            ValueError: keys are unknown, or a value is out of range.
        """
        known = [field.name for field in fields(cls)]
        if unknown := sorted(set(data) - set(known)):
            raise ValueError(f"consolidate: unknown key {unknown[0]!r}; known: {', '.join(known)}")
        return cls(**data)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON-able data."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class ConsolidationReport:
    """What a consolidation did.

    Attributes:
        items_before, slots_before, items, slots: how many there were, and are.
        merged: items that would go, or went, into a slot with the same key and token.
        conflicts: items whose key has another token later.
        promoted: items that are slots now.
        pruned: slots that were lost to the budget, and, if items were merged, items that recurred too rarely.
        questions: of the test.
        right: of them, those for which slots of the token that came are read most; right_plain: the same where nothing
            is merged.
        accepted: whether items were merged.
    """

    items_before: int
    slots_before: int
    items: int
    slots: int
    merged: int
    conflicts: int
    promoted: int
    pruned: int
    questions: int
    right: int
    right_plain: int
    accepted: bool

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON-able data."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Readers:
    """What decides how a memory is read, beside its items: of each layer and head.

    Attributes:
        sharp_G: the temperature that cosines are multiplied by.
        null_G: score of the null item.
    """

    sharp_G: Tensor
    null_G: Tensor

    @classmethod
    def of(cls, ltm: LTM) -> Readers:
        """Return those of a model."""
        tensors = {name: tensor.detach() for name, tensor in ltm.state_dict().items()}
        return cls.from_tensors(tensors, len(ltm.readers))

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor], layers: int) -> Readers:
        """Build from weights by the names that they have in `LTM`."""
        parts = [
            torch.cat([tensors[f"readers.{n}.{name}"] for n in range(layers)]).cpu().double()
            for name in ("log_temperature", "null")
        ]
        return cls(parts[0].exp(), (parts[1] - 1.0) * parts[0].exp())


class Consolidator:
    """Consolidates rows of a batch whenever they are due.

    Args:
        ltm: of the model that writes.
        rules: how.

    Attributes:
        reports: of everything that was done so far.
    """

    def __init__(self, ltm: LTM, rules: ConsolidationConfig | None = None) -> None:
        self.config, self.readers, self.rules = ltm.config, Readers.of(ltm), rules or ConsolidationConfig()
        self.reports: list[ConsolidationReport] = []

    def totals(self) -> dict[str, int]:
        """Return how many consolidations there were, how many merged items, the sums of what those did, and `bytes`.

        The latter are what the largest memory takes after one; before it, items of a segment stand beside that.
        """
        item, slot = bytes_each(self.config)
        largest = max((report.items * item + report.slots * slot for report in self.reports), default=0)
        accepted = [report for report in self.reports if report.accepted]
        did = ("merged", "conflicts", "promoted", "pruned")
        sums = {name: sum(getattr(report, name) for report in accepted) for name in did}
        return {"all": len(self.reports), "accepted": len(accepted), **sums, "bytes": largest}

    def __call__(self, memory: LTMState) -> LTMState:
        """Return the memories after."""
        for row in due(memory, self.config, self.rules).nonzero().flatten().tolist():
            after, report = consolidate(memory.select(slice(row, row + 1)), self.config, self.readers, self.rules)
            self.reports.append(report)
            rows = torch.tensor([row], device=memory.clock_B.device)
            memory = memory.replaced(rows, after, torch.zeros_like(rows))
        return memory


class _Questions:
    """What later items asked of older ones, and what came then.

    Args:
        own: tensors of the memory by name, a place per entry.
        asking: places of the later items.
        keys_MX: keys of the memory that is asked.
        readers, config: as of `consolidate`.
    """

    def __init__(
        self, own: Mapping[str, Tensor], asking: Sequence[int], keys_MX: Tensor, readers: Readers, config: LTMConfig
    ) -> None:
        self.heads = len(readers.sharp_G)
        questions_QGD = by_head(own["keys_BMX"][asking].double(), self.heads)
        self.right_QGD = by_head(own["values_BMX"][asking].double(), self.heads)
        cosine_QGM = torch.einsum("qgd,mgd->qgm", questions_QGD, by_head(keys_MX.double(), self.heads))
        scores_QGM = (cosine_QGM - 1.0) * readers.sharp_G[:, None]
        self.weights_QGM = scores_QGM.exp() * (cosine_QGM > config.similarity)
        self.null_G = readers.null_G.exp()
        self.tokens_M = own["tokens_BMN"][:, -1].clamp(min=0)
        self.came_Q = self.tokens_M[asking]

    def _weights(self, beta_MG: Tensor, there_M: Tensor) -> Tensor:
        """Return what some of the items weigh with their masses, (Q, G, M)."""
        return self.weights_QGM * (beta_MG.double().exp() * there_M[:, None]).t()

    def _read(self, beta_MG: Tensor, there_M: Tensor, values_MX: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return what is read of some of the items, (Q, G, D), their weights and the mass of all."""
        weights_QGM = self._weights(beta_MG, there_M)
        mass_QG1 = (weights_QGM.sum(-1) + self.null_G)[..., None]
        values_MGD = by_head(values_MX.double(), self.heads)
        return torch.einsum("qgm,mgd->qgd", weights_QGM, values_MGD) / mass_QG1, weights_QGM, mass_QG1

    def right(self, beta_MG: Tensor, there_M: Tensor) -> int:
        """Return for how many questions the token that came is the one whose items are read most."""
        weights_QGM = self._weights(beta_MG, there_M)
        votes_QT = torch.zeros(len(weights_QGM), int(self.tokens_M.max()) + 1, dtype=torch.float64)
        votes_QT.index_add_(1, self.tokens_M, weights_QGM.sum(1))
        most_Q, token_Q = votes_QT.max(1)
        return int(((token_Q == self.came_Q) & (most_Q > 0)).sum())

    def cost(self, beta_MG: Tensor, there_M: Tensor, values_MX: Tensor) -> Tensor:
        """Return by how much the squared distance grows if one item goes, (M,)."""
        read_QGD, weights_QGM, mass_QG1 = self._read(beta_MG, there_M, values_MX)
        # Without item m the read moves by w / (Z - w) times its distance from m's value.
        share_QGM = weights_QGM / (mass_QG1 - weights_QGM).clamp(min=1e-12)
        values_MGD = by_head(values_MX.double(), self.heads)
        off_QGD = read_QGD - self.right_QGD
        along_QGM = (off_QGD * read_QGD).sum(-1)[..., None] - torch.einsum("qgd,mgd->qgm", off_QGD, values_MGD)
        squares_QGM = (
            read_QGD.square().sum(-1)[..., None]
            + values_MGD.square().sum(-1).t()
            - 2 * torch.einsum("qgd,mgd->qgm", read_QGD, values_MGD)
        )
        cost_M: Tensor = (2 * share_QGM * along_QGM + share_QGM.square() * squares_QGM).sum((0, 1))
        return cost_M


def due(state: LTMState, config: LTMConfig, rules: ConsolidationConfig) -> Tensor:
    """Return which rows hold so many items that they should be consolidated, (B,) bool.

    Args:
        state: of any rows.
        config: of the memory.
        rules: how it is consolidated.
    """
    item_BM = (state.position_BM >= 0) & (state.members_BM == 0)
    return item_BM.sum(1) >= rules.at * config.capacity


def consolidate(
    state: LTMState, config: LTMConfig, readers: Readers, rules: ConsolidationConfig | None = None
) -> tuple[LTMState, ConsolidationReport]:
    """Consolidate the memory of one row.

    Args:
        state: one row; it is not changed.
        config: of the memory; its `slots` are the budget.
        readers: of the model that wrote it.
        rules: how.

    Returns:
        The memory after, on the state's device, and what was done. Where the test fails nothing is merged: old items
        become slots one by one, and the oldest are forgotten.

    Raises:
        ValueError: there is more than one row, or no place for slots.
    """
    rules = rules or ConsolidationConfig()
    if state.clock_B.shape[0] != 1:
        raise ValueError(f"one memory at a time is consolidated, got {state.clock_B.shape[0]}")
    if not config.slots:
        raise ValueError("ltm: consolidation needs places; set slots")
    device = state.clock_B.device
    own = {name: tensor[0].cpu() for name, tensor in state.tensors().items() if "_BM" in name}
    after, report = _consolidated(own, config, readers, rules)
    return replace(state, **{name: tensor[None].to(device) for name, tensor in after.items()}), report


@dataclass(frozen=True, slots=True)
class _Grouped:
    """What the older places of a memory come to where keys are the same; for each place, (M,).

    Attributes:
        kept_M: the latest older one of its key, which nothing newer contradicts.
        contradicted_M: a later one of its key has another token.
        members_M: items that each one stands for, those that agree with it included.
    """

    kept_M: Tensor
    contradicted_M: Tensor
    members_M: Tensor


def _grouped(
    own: Mapping[str, Tensor], older: Sequence[int], newer: Sequence[int], rules: ConsolidationConfig
) -> _Grouped:
    """Compare keys and tokens, the latest first; places are given oldest first."""
    there = [*older, *newer]
    keys_MGD = by_head(own["keys_BMX"][there].float(), own["beta_BMG"].shape[-1])
    alike = (torch.einsum("mgd,ngd->gmn", keys_MGD[: len(older)], keys_MGD).amin(0) > rules.same_key).numpy()
    position, token = own["position_BM"].numpy(), own["tokens_BMN"][:, -1].numpy()
    members_M = own["members_BM"].clamp(min=1)
    kept_M, contradicted_M = (torch.zeros(len(members_M), dtype=torch.bool) for _ in range(2))
    members, kept, contradicted = members_M.numpy(), kept_M.numpy(), contradicted_M.numpy()  # the same memory
    kept[older] = True
    places, is_newer = np.array(there), np.zeros(len(members), bool)
    is_newer[newer] = True

    for row in np.flatnonzero(alike.sum(1) > 1)[::-1]:  # those whose key is not theirs alone
        m, others = older[row], places[alike[row]]
        later = others[position[others] > position[m]]
        same, said = later[kept[later]], later[is_newer[later]]
        latest = same[position[same].argmax()] if len(same) else None
        if latest is not None and token[m] == token[latest]:
            members[latest] += members[m]
            kept[m] = False
        elif latest is not None or (len(said) and token[m] != token[said[position[said].argmax()]]):
            kept[m], contradicted[m] = False, True
    return _Grouped(kept_M, contradicted_M, members_M)


def _consolidated(
    own: dict[str, Tensor], config: LTMConfig, readers: Readers, rules: ConsolidationConfig
) -> tuple[dict[str, Tensor], ConsolidationReport]:
    """Return the tensors of the memory after, and what was done; arguments as of `consolidate`."""
    position_M, there_M = own["position_BM"], own["position_BM"] >= 0
    order = position_M.argsort(stable=True)
    order = order[there_M[order]]
    slot_M = there_M & (own["members_BM"] > 0)
    items = order[~slot_M[order]].tolist()
    newer = items[len(items) - math.ceil(rules.keep * len(items)) :]
    newer_M = torch.zeros_like(there_M)
    newer_M[newer] = True
    older = order[~newer_M[order]].tolist()
    is_fitted = rules.mass == "fitted" or rules.prune == "cost"
    fitting = _Questions(own, newer[::2] if is_fitted else [], own["keys_BMX"], readers, config)
    test = newer[1::2] if is_fitted else newer

    def slots_of(grouped: _Grouped) -> tuple[dict[str, Tensor], Tensor, int]:
        """Return the memory in which old items are slots, which ones, and what of the test they answer right."""
        chosen = _chosen(own, grouped, fitting, config, rules)
        after = _with_slots(own, newer_M, chosen, _masses(own, grouped, chosen, fitting, rules), grouped.members_M)
        questions = _Questions(own, test, after["keys_BMX"], readers, config)
        return after, chosen, questions.right(after["beta_BMG"], after["members_BM"] > 0)

    alone = _Grouped(there_M & ~newer_M, torch.zeros_like(there_M), own["members_BM"].clamp(min=1))
    grouped = _grouped(own, older, newer, rules)
    plain = slots_of(alone)
    merged = plain if bool(grouped.kept_M.sum() == len(older)) and rules.recurring == 1 else slots_of(grouped)
    accepted = not rules.gate or merged[2] >= plain[2]
    after, chosen, _ = merged if accepted else plain
    return after, ConsolidationReport(
        items_before=len(items),
        slots_before=int(slot_M.sum()),
        items=len(newer),
        slots=len(chosen),
        merged=len(older) - int(grouped.kept_M.sum()) - int(grouped.contradicted_M.sum()),
        conflicts=int(grouped.contradicted_M.sum()),
        promoted=int((~slot_M[chosen]).sum()),
        pruned=int((grouped if accepted else alone).kept_M.sum()) - len(chosen),
        right=merged[2],
        right_plain=plain[2],
        questions=len(test),
        accepted=accepted,
    )


def _chosen(
    own: Mapping[str, Tensor], grouped: _Grouped, fitting: _Questions, config: LTMConfig, rules: ConsolidationConfig
) -> Tensor:
    """Return the places of what becomes a slot, (K,)."""
    places = np.flatnonzero((grouped.kept_M & (grouped.members_M >= rules.recurring)).numpy())
    cost = np.zeros(len(places))
    if rules.prune == "cost":
        old_M = grouped.kept_M & ~grouped.contradicted_M
        cost = fitting.cost(own["beta_BMG"], old_M, own["values_BMX"]).numpy()[places].round(9)
    rising = np.lexsort((own["position_BM"].numpy()[places], cost))
    return torch.from_numpy(np.sort(places[rising[-(config.slots or 0) :]]))


def _masses(
    own: Mapping[str, Tensor], grouped: _Grouped, chosen: Tensor, fitting: _Questions, rules: ConsolidationConfig
) -> Tensor:
    """Return the logarithms of the masses of slots, (K, G)."""
    G = own["beta_BMG"].shape[-1]
    if rules.mass == "one":
        return torch.zeros(len(chosen), G, dtype=torch.float64)
    if rules.mass == "members":
        return grouped.members_M[chosen].double().log()[:, None].expand(-1, G)
    old_M = (own["position_BM"] >= 0) & ~grouped.contradicted_M
    whole_MG = own["beta_BMG"].double().exp() * old_M[:, None]
    return _fitted(fitting.weights_QGM[..., chosen], (fitting.weights_QGM * whole_MG.t()).sum(-1))


def _with_slots(
    own: Mapping[str, Tensor], newer_M: Tensor, chosen: Tensor, beta_KG: Tensor, members_M: Tensor
) -> dict[str, Tensor]:
    """Return the memory with the newer items and with slots alone."""
    after = {name: tensor.clone() for name, tensor in own.items()}
    stays_M = newer_M.clone()
    stays_M[chosen] = True
    after["position_BM"][~stays_M] = -1
    for name in ("members_BM", "beta_BMG"):
        after[name].zero_()
    after["members_BM"][chosen] = members_M[chosen]
    after["beta_BMG"][chosen] = beta_KG.to(after["beta_BMG"].dtype)
    fresh = chosen[own["members_BM"][chosen] == 0]
    for name in ("keys_BMX", "values_BMX"):
        after[name][fresh] = rounded(own[name][fresh], beta_KG.shape[-1])
    return after


def _fitted(weights_QGK: Tensor, mass_QG: Tensor) -> Tensor:
    """Return logarithms of masses of slots with which they weigh as much as all that they stand for, (K, G).

    Nonnegative least squares by multiplicative updates (Lee and Seung 2000), which need no step size.
    """
    aim_GK = torch.einsum("qgk,qg->gk", weights_QGK, mass_QG)
    gram_GKK = torch.einsum("qgk,qgl->gkl", weights_QGK, weights_QGK)
    mass_GK = torch.ones_like(aim_GK)
    for _ in range(200):
        mass_GK = mass_GK * (aim_GK + 1e-9) / (torch.einsum("gkl,gl->gk", gram_GKK, mass_GK) + 1e-9)
    return mass_GK.clamp(1e-2, 1e4).log().t()


def bytes_each(config: LTMConfig) -> tuple[int, int]:
    """Return how many bytes an item and a slot take in a file that has slots."""
    X, G = len(config.layers) * config.width, len(config.layers) * config.n_head
    rest = 4 * (4 + SHOWN_TOKENS + 1 + G)  # surprisal, position, use, reads; tokens; members; masses
    return 8 * X + rest, 2 * X + 2 * G + rest
