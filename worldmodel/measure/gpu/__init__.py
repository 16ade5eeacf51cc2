"""What a GPU gives: `python -m worldmodel.gpu`."""
