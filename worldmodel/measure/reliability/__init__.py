"""Does a run survive? `python -m worldmodel.reliability` kills, breaks and repeats small runs, and tells."""
