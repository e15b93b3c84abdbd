"""Bunny's models on llava's engine. Importing it registers families and templates, without importing torch."""

import bunny.conversation
import bunny.families  # noqa: F401
