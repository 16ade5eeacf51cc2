"""Measure the transformer's speed: `python -m worldmodel.speed`."""

from worldmodel.measure.transformer_speed import main

if __name__ == "__main__":
    main()
