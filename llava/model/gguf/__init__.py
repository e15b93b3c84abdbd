"""Export to GGUF files for llama.cpp: the language model, and tower with projector (mmproj) for its mtmd tools.

Names of keys and tensors are those of the package `gguf`, which is optional: import this room only where it is used.
"""
