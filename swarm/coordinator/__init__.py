"""Coordinators: one protocol, several kinds. Knows report text and directives, never a world object."""
