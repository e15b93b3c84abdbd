"""Choose decoder layers, tune only those, score layers, remove layers. Knows decoder layers, not LLaVA."""
