"""Kill, break and repeat small runs: `python -m worldmodel.reliability`."""

from worldmodel.measure.reliability.command import main

if __name__ == "__main__":
    main()
