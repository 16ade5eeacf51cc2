"""Tune every signal with the same budget: `python -m worldmodel.tune`."""

from worldmodel.experiments.tune.command import main

if __name__ == "__main__":
    main()
