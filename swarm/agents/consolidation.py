"""When agents' long-term memories are consolidated, and how: settings, and the work beside the tick loop.

- Owns the way from settings to `ulm.memory.consolidation`, and what stands in the journal of it.
- The rules of reading and writing are the model's, but for what `policy` changes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from swarm.errors import SwarmError
from swarm.record.change import Change
from swarm.record.records import EvidenceEntry, TestEntry

if TYPE_CHECKING:
    from ulm.config import LTMConfig
    from ulm.memory.consolidation import ConsolidationConfig

POLICY = ("capacity", "slots", "threshold_bits", "gamma", "write_budget", "eviction", "similarity", "overwrite")
"""Fields of `ulm.config.LTMConfig` that may differ from the model's: they change no shape of its weights."""


NO_SLOTS = "agents.memory: ltm.consolidate needs places for what it keeps; set ltm.policy.slots"


def with_policy(config: LTMConfig, policy: Mapping[str, Any]) -> LTMConfig:
    """Return the rules of a memory with what an experiment changes.

    Raises:
        SwarmError: a field is unknown, or its value is out of range.
    """
    if unknown := sorted(set(policy) - set(POLICY)):
        raise SwarmError(f"agents.memory: ltm.policy has no {unknown[0]!r}; it may have: {', '.join(POLICY)}")
    try:
        return dataclasses.replace(config, **policy)
    except ValueError as error:
        raise SwarmError(f"agents.memory: ltm.policy: {error}") from error


def rules_of(settings: Mapping[str, Any]) -> ConsolidationConfig:
    """Return how a memory is consolidated.

    Raises:
        SwarmError: a field is unknown, or its value is out of range.
    """
    from ulm.memory.consolidation import ConsolidationConfig

    try:
        return ConsolidationConfig.from_dict(dict(settings))
    except ValueError as error:
        raise SwarmError(f"agents.memory: ltm.{error}") from error


class Consolidation:
    """Consolidates memories that hosts wrote.

    Args:
        settings: how, fields of `ulm.memory.consolidation.ConsolidationConfig`.
        policy: of the memory.
        model: folder of the agents' checkpoint, whose readers decide what is read.

    Raises:
        SwarmError: the checkpoint is missing or damaged, or leaves no place for slots.
    """

    def __init__(self, settings: Mapping[str, Any], policy: Mapping[str, Any], model: Path) -> None:
        import torch

        from ulm.checkpoint import load_weights_numpy, read_checkpoint_config
        from ulm.memory.consolidation import Readers

        try:
            config = read_checkpoint_config(model).model.ltm
            weights = load_weights_numpy(model)
        except ValueError as error:
            raise SwarmError(str(error)) from error
        if config is None:
            raise SwarmError(f"agents.memory: {model} has no long-term memory")
        self.config, self.rules = with_policy(config, policy), rules_of(settings)
        if not self.config.slots:
            raise SwarmError(NO_SLOTS)
        tensors = {n.removeprefix("ltm."): torch.from_numpy(w) for n, w in weights.items() if n.startswith("ltm.")}
        self._readers = Readers.from_tensors(tensors, len(config.layers))

    def is_due(self, data: bytes) -> bool:
        """Return whether a memory is nearly full."""
        from ulm.memory import LTMState
        from ulm.memory.consolidation import due

        return bool(due(LTMState.from_bytes(data, self.config), self.config, self.rules)[0])

    def consolidate(self, data: bytes, of: tuple[str, str], seq: int) -> tuple[bytes, Change]:
        """Return the memory after, and what goes on record.

        Args:
            data: the memory before.
            of: which one (`LongTermMemory` calls it home), and whose it is.
            seq: of the record after which it was due.
        """
        from ulm.memory import LTMState
        from ulm.memory.consolidation import consolidate

        home, agent = of
        before = LTMState.from_bytes(data, self.config)
        state, report = consolidate(before, self.config, self._readers, self.rules)
        after, told = bytes(state.to_bytes()), report.to_dict()
        right, plain, questions = (told.pop(name) for name in ("right", "right_plain", "questions"))
        del told["accepted"]
        shares = [count / max(1, questions) for count in (plain, right)]
        test = TestEntry(name="right", before=shares[0], after=shares[1], limit=0.0, n=questions, passed=right >= plain)
        change = Change(
            "ltm",
            agent,
            "consolidate",
            sha256(data).hexdigest(),
            sha256(after).hexdigest(),
            EvidenceEntry(records=[seq, seq], digest="", counts=told),
            {"home": home, **self.rules.to_dict()},
            tests=[test],
            note="" if report.accepted else "nothing was merged, the oldest were forgotten",
        )
        return after, change
