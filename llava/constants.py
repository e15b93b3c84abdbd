"""Token ids and strings (upstream: llava/constants.py)."""

IGNORE_INDEX = -100
"""Label of an unsupervised position."""
IMAGE_TOKEN_INDEX = -200
"""Id of an image in `input_ids`, replaced by its features."""
DEFAULT_IMAGE_TOKEN = "<image>"
DEFAULT_IMAGE_PATCH_TOKEN = "<im_patch>"
DEFAULT_IM_START_TOKEN = "<im_start>"
DEFAULT_IM_END_TOKEN = "<im_end>"
IMAGE_PLACEHOLDER = "<image-placeholder>"
