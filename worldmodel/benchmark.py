"""Compare methods, environments and seeds: `python -m worldmodel.benchmark`."""

from worldmodel.experiments.benchmark.command import main

if __name__ == "__main__":
    main()
