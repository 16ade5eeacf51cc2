"""Train on the workers of a Ray cluster: `python -m worldmodel.cluster`."""

from worldmodel.training.ray import main

if __name__ == "__main__":
    main()
