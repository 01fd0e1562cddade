"""Coordinators: one protocol, several minds. Knows report text and directives, never a world object."""
