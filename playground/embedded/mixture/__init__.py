"""A mixture of tasks in kind, for studies of layers with the embedded default: README.md in this folder."""
