"""Choose decoder layers, tune only those, score layers, remove layers, set them back, heal what is left."""
