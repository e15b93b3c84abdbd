"""Images to pixels and prompts to ids under upstream's name (upstream: bunny/util/mm_utils.py)."""

from llava.mm_utils import (  # noqa: F401
    KeywordsStoppingCriteria,
    expand2square,
    get_model_name_from_path,
    load_image_from_base64,
    process_images,
    tokenizer_image_token,
)
