"""A mixture of different tasks, for studies of layers with the embedded default: README.md in this folder."""
