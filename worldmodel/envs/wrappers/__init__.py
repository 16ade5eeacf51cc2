"""Wrappers of environments."""
