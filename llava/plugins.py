"""How another package adds backbones and templates, without llava knowing its name.

A package joins by one module in the folder `llava_plugins` next to it: a namespace package, which has no __init__.py,
so that every folder of that name on the Python path is part of it. The module imports what calls
`llava.families.register_family` and fills `llava.conversation.conv_templates`. It is found in a bare checkout, with
PYTHONPATH, and after an installation alike; an entry point is found after an installation only. Nothing here imports
torch, and a plug-in should not import it either.
"""

import functools
import importlib
import importlib.util
import pkgutil

_NAMESPACE = "llava_plugins"


@functools.cache
def load_plugins() -> dict[str, str]:
    """Imports every plug-in, once. Returns those whose package is not here: name -> what could not be imported."""
    spec = importlib.util.find_spec(_NAMESPACE)
    absent = {}
    for module in pkgutil.iter_modules(spec.submodule_search_locations if spec else ()):
        try:
            importlib.import_module(f"{_NAMESPACE}.{module.name}")
        except ImportError as error:
            absent[module.name] = str(error)
    return absent
