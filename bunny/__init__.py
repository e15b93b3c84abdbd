"""Bunny's models on llava's engine; this package holds only what differs."""
