"""Tuning of signals with equal budgets: draws -> runs in two stages -> results.csv -> ranking and presets."""
