"""A network of one fixed size as one file that runs without this package."""
