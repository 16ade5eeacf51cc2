"""Measurements on a GPU: `python -m worldmodel.gpu`."""
