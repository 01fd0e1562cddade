"""Entities that last: who texts speak of, what is known of them, and who says so."""

from ulm.memory.registry.asking import UNKNOWN, answered, mentions_of
from ulm.memory.registry.identity import Identity, Resolution
from ulm.memory.registry.registry import Claim, EntityRegistry
from ulm.memory.registry.store import NOBODY, Origin, Relation
from ulm.memory.registry.view import Entity, Said

__all__ = [
    "NOBODY",
    "UNKNOWN",
    "Claim",
    "Entity",
    "EntityRegistry",
    "Identity",
    "Origin",
    "Relation",
    "Resolution",
    "Said",
    "answered",
    "mentions_of",
]
