"""Engines behind the vector interface."""
