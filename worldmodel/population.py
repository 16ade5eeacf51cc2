"""Population-based training: `python -m worldmodel.population`."""

from worldmodel.experiments.population.command import main

if __name__ == "__main__":
    main()
