"""Predictions from the memory."""
