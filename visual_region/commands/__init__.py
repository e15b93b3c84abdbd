"""The commands of `python -m visual_region`: one module each, imported when its flags have been read (flags.py).

A module has `run(args)`; `__main__` prints ValueError and OSError as one line.
"""

COMMANDS: dict[str, str] = {
    "select": "print layer lists, how they overlap, and how stable they are",
    "score": "importance of every layer, by every metric",
    "picture": "draw score files and pruning curves",
    "plan": "what a selection would train and cost: parameters, FLOPs, memory, files",
    "perplexity": "perplexity of text and answers, with blocks of layers set back to the backbone",
    "prune": "remove layers and write a checkpoint",
    "curve": "scores of benchmarks against layers removed, of one or several checkpoints",
    "revert": "set layers back to the backbone's weights and write a checkpoint",
    "heal": "distil a pruned model from the unpruned one",
    "study": "train, evaluate and measure every cell of a plan; tables and figures",
    "export": "write a folder that stock transformers loads, or GGUF files for llama.cpp",
    "doctor": "what is installed, which devices and kernels are used, and what to install for the rest",
}
"""Name of the command and its module -> help."""
RESUMABLE = frozenset({"score", "perplexity", "curve", "heal", "study"})
"""Commands that continue where they were interrupted."""
