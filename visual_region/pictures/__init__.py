"""Pictures of scores and selections, as PNG files."""
