"""Entities that last: who texts speak of, what is known of them, and who says so."""

from ulm.memory.registry.registry import Entity, EntityRegistry, Said
from ulm.memory.registry.store import Origin, Relation

__all__ = ["Entity", "EntityRegistry", "Origin", "Relation", "Said"]
