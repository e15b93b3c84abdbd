"""Token ids and strings under upstream's name (upstream: bunny/constants.py)."""

from llava.constants import DEFAULT_IMAGE_TOKEN, IGNORE_INDEX, IMAGE_TOKEN_INDEX  # noqa: F401
