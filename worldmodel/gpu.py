"""Measure speed and sameness on a GPU: `python -m worldmodel.gpu`."""

from worldmodel.measure.gpu.command import main

if __name__ == "__main__":
    main()
