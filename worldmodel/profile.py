"""Profile a run: `python -m worldmodel.profile`."""

from worldmodel.measure.profile import main

if __name__ == "__main__":
    main()
