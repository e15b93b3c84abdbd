"""Plug-ins: how another package adds backbones and templates.

A package has one module in the folder `llava_plugins` next to it: a namespace package without __init__.py, found on the
whole Python path (an entry point is found only after an installation). The module imports what calls
`llava.families.register_family` and fills `llava.conversation.conv_templates`, and should not import torch.
"""

import functools
import importlib
import importlib.util
import pkgutil

_NAMESPACE = "llava_plugins"


@functools.cache
def load_plugins() -> dict[str, str]:
    """Imports every plug-in once. Returns those that cannot be imported: name -> error."""
    spec = importlib.util.find_spec(_NAMESPACE)
    absent = {}
    for module in pkgutil.iter_modules(spec.submodule_search_locations if spec else ()):
        try:
            importlib.import_module(f"{_NAMESPACE}.{module.name}")
        except ImportError as error:
            absent[module.name] = str(error)
    return absent
