"""Measurements of speed, memory, GPU use and reliability."""
