"""Makes Bunny's families and templates known to llava (how this file is found: llava/plugins.py)."""

import bunny  # noqa: F401
