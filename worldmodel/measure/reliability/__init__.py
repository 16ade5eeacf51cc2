"""Reliability measurements: `python -m worldmodel.reliability` kills, breaks and repeats small runs."""
