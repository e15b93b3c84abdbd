"""Bunny's models on llava's engine; this package holds only what differs.

Importing it registers its families and its conversation templates, without importing torch.
"""

import bunny.conversation
import bunny.families  # noqa: F401
