"""Token ids and strings that the whole stack agrees on (upstream: llava/constants.py)."""

IGNORE_INDEX = -100
"""Label of a position that is not trained."""
IMAGE_TOKEN_INDEX = -200
"""Id that stands for an image in `input_ids` until its features take its place."""
DEFAULT_IMAGE_TOKEN = "<image>"
DEFAULT_IMAGE_PATCH_TOKEN = "<im_patch>"
DEFAULT_IM_START_TOKEN = "<im_start>"
DEFAULT_IM_END_TOKEN = "<im_end>"
IMAGE_PLACEHOLDER = "<image-placeholder>"
