"""Importance of decoder layers; one metric a file."""
