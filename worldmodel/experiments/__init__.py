"""Benchmarks, studies and populations: many runs and their comparison."""
