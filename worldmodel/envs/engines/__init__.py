"""Engines of the vector environments."""
