"""The embedded default: models and data that come as PyPI wheels, turned into this stack's formats."""
