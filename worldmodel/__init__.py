"""Curiosity-driven transformer world models."""
