"""The embedded default: models and data from PyPI wheels, converted to this project's formats."""
