"""The mixin that makes a language model of transformers a LLaVA (upstream: llava/model/llava_arch.py)."""

import re
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast
from transformers.utils.generic import is_flash_attention_requested

from llava.constants import IGNORE_INDEX, IMAGE_TOKEN_INDEX
from llava.model.label_loss import loss_where_labelled
from llava.model.multimodal_encoder.base import VisionTower
from llava.model.row_attention import ROWS, row_arguments, shares_positions
from llava.model.splice import deal_blocks, join_rows, pad_rows, shared_length, splice_row
from llava.model.vision_modules import Images, LlavaMetaModel
from llava.tiling import Size, Tiling


class LlavaMetaForCausalLM:
    """A mixin in front of a causal language model of transformers; `decoder_class` is its decoder with vision."""

    decoder_class: ClassVar[type[LlavaMetaModel]]

    # The loss of transformers 4.37, for upstream's recipes: the mean of the micro-batches' means.
    accepts_loss_kwargs = False
    # The tower is read from mm_vision_tower; full checkpoints hold a copy of it.
    _keys_to_ignore_on_load_unexpected = (r"vision_tower\.",)

    label_only_logits = False
    """With labels: compute logits only at positions with a label, and return `logits=None`."""
    keep_label_logits = False
    """With `label_only_logits`: return those logits too, float32 `(labels, vocabulary)` in reading order."""
    padding_free = False
    """With labels: compute the rows of a batch without padding. The loss is the same; `logits` are the joined rows'."""
    share_prefix = True
    """With `padding_free`, where the attention can: compute ids that all rows begin with only once."""

    def compute_without_padding(self) -> None:
        """Switches `padding_free` on. Flash attention can do it by itself; others are replaced by `row_attention`."""
        if not is_flash_attention_requested(self.config):
            # Not `set_attn_implementation`, which also changes a tower inside the model.
            self.config._attn_implementation = ROWS
        self.padding_free = True

    def __init__(self, config: Any) -> None:
        # The language model's own __init__ would build a plain decoder.
        PreTrainedModel.__init__(self, config)
        self.model = self.decoder_class(config)
        self.vocab_size = config.vocab_size
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.lm_head.register_forward_pre_hook(_contiguous)
        self.post_init()

    def get_model(self) -> LlavaMetaModel:
        return self.model

    def get_vision_tower(self) -> VisionTower | None:
        return self.get_model().get_vision_tower()

    @property
    def tiling(self) -> Tiling | None:
        """How many views and tokens an image has; None for a model without a tower."""
        return None if self.get_vision_tower() is None else self.get_model().tiling

    @property
    def image_tokens(self) -> int:
        """The number of tokens per image, at most; 0 for a model without a tower."""
        return 0 if self.tiling is None else self.tiling.most_tokens

    def save_pretrained(
        self,
        save_directory: Any,
        is_main_process: bool = True,
        state_dict: dict[str, torch.Tensor] | None = None,
        **kwargs: Any,
    ) -> None:
        """Saves as transformers does, with upstream's names for the tower's weights."""
        state_dict = self.file_names(self.state_dict() if state_dict is None else state_dict)
        super().save_pretrained(save_directory, is_main_process=is_main_process, state_dict=state_dict, **kwargs)

    def file_names(self, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Tensors by their names in upstream's files, where the tower's names have one level more."""
        prefix = getattr(self.get_vision_tower(), "file_prefix", "")
        inside = re.compile(rf"vision_tower\.vision_tower\.(?!{re.escape(prefix)})")
        return {inside.sub(f"vision_tower.vision_tower.{prefix}", name): tensor for name, tensor in state.items()}

    def encode_images(self, images: torch.Tensor) -> torch.Tensor:
        """Pixels `(n, 3, h, w)` to image tokens `(n, image_tokens, hidden_size)`."""
        return self.get_model().encode_images(images)

    def project_features(self, features: torch.Tensor) -> torch.Tensor:
        """Tower features `(n, patches, mm_hidden_size)` to image tokens `(n, image_tokens, hidden_size)`."""
        return self.get_model().project_features(features)

    def _rows(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None,
        labels: torch.Tensor | None,
        images: Images | None,
        image_features: Images | None,
        image_sizes: Sequence[Size] | None,
    ) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Vectors and labels of each row, with its images and without padding, cut to the model's length."""
        mask = torch.ones_like(input_ids, dtype=torch.bool) if attention_mask is None else attention_mask.bool()
        row_ids = [ids[keep] for ids, keep in zip(input_ids, mask, strict=True)]
        all_labels = torch.full_like(input_ids, IGNORE_INDEX) if labels is None else labels
        row_labels = [row[keep] for row, keep in zip(all_labels, mask, strict=True)]
        counts = [int((ids == IMAGE_TOKEN_INDEX).sum()) for ids in row_ids]
        given = images is not None or image_features is not None
        blocks = self.get_model().image_blocks(images, image_features, image_sizes) if given else []
        per_row = deal_blocks(blocks, counts)

        # One call of the embedding per batch: under ZeRO-3 it is a collective, and ranks have different rows.
        words = self.get_input_embeddings()(input_ids.masked_fill(~mask | (input_ids == IMAGE_TOKEN_INDEX), 0))
        row_words = [row[keep] for row, keep in zip(words, mask, strict=True)]
        limit = getattr(self.config, "tokenizer_model_max_length", None)
        spliced = []
        for ids, row_label, row_blocks, row in zip(row_ids, row_labels, per_row, row_words, strict=True):
            vectors, targets = splice_row(ids, row_label, row_blocks, row)
            spliced.append((vectors[:limit], targets[:limit]))
        if blocks and not sum(counts):
            # The empty image of a batch of text: nothing of it is used, and what made it has a gradient of zero.
            vectors, targets = spliced[0]
            spliced[0] = (torch.cat([vectors, blocks[0][:0].to(vectors.dtype)]), targets)
        return spliced

    def _shared_positions(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None, labels: list[torch.Tensor]
    ) -> int:
        """How many positions all rows begin with and are computed once; `labels` are the spliced rows'."""
        if not self.share_prefix or not shares_positions(input_ids.device):
            return 0
        keep = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        return shared_length([ids[row.bool()] for ids, row in zip(input_ids, keep, strict=True)], labels)

    def prepare_inputs_labels_for_multimodal(
        self,
        input_ids: torch.Tensor,
        position_ids: torch.Tensor | None,
        attention_mask: torch.Tensor | None,
        past_key_values: Any,
        labels: torch.Tensor | None,
        images: Images | None = None,
        image_sizes: Sequence[Size] | None = None,
        image_features: Images | None = None,
        padding_side: str | None = None,
    ) -> tuple[Any, ...]:
        """Replaces each -200 in the ids by its image's features.

        Rows are cut to `config.tokenizer_model_max_length` and padded again on `padding_side` (default:
        `config.tokenizer_padding_side`, else right). Positions count from 0 in each row; labels of image tokens and
        of padding are -100.

        Args:
            input_ids: int64 `(batch, length)`; attention_mask, labels, position_ids: the same shape or None.
            images: pixels, one entry per -200, in reading order, and optionally an empty one for each row without an
                image, as upstream, or a single one if no row has an image.
            image_sizes: width and height of each image in pixels, if images have several views.
            image_features: features of the tower, instead of pixels.

        Returns:
            `(None, position_ids, attention_mask, past_key_values, inputs_embeds, labels)`; None arguments stay None.
            Without images, or for a decoding step of length 1, the arguments are returned with embeds None.

        Raises:
            ValueError: the number of images is not the number of `<image>` tokens.
        """
        given = images is not None or image_features is not None
        if not given or input_ids.shape[1] == 1:
            if input_ids is not None and (input_ids == IMAGE_TOKEN_INDEX).any():
                raise ValueError("the prompt holds <image> tokens but no images were given")
            return input_ids, position_ids, attention_mask, past_key_values, None, labels

        rows = self._rows(input_ids, attention_mask, labels, images, image_features, image_sizes)
        side = padding_side or getattr(self.config, "tokenizer_padding_side", "right")
        embeds, new_labels, new_mask, new_positions = pad_rows(rows, side)
        return (
            None,
            None if position_ids is None else new_positions,
            None if attention_mask is None else new_mask.to(attention_mask.dtype),
            past_key_values,
            embeds,
            None if labels is None else new_labels,
        )

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Any = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        images: Images | None = None,
        image_sizes: Sequence[Size] | None = None,
        image_features: Images | None = None,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """The language model's forward, with images; arguments as in `prepare_inputs_labels_for_multimodal`."""
        if inputs_embeds is None and labels is not None and self.padding_free:
            rows = self._rows(input_ids, attention_mask, labels, images, image_features, image_sizes)
            shared = self._shared_positions(input_ids, attention_mask, [targets for _, targets in rows])
            inputs_embeds, labels, position_ids = join_rows(rows, shared)
            lengths = [len(targets) - shared * (index > 0) for index, (_, targets) in enumerate(rows)]
            kwargs |= row_arguments(lengths, labels.device, shared)
            input_ids = attention_mask = None
        elif inputs_embeds is None:
            prepared = self.prepare_inputs_labels_for_multimodal(
                input_ids, position_ids, attention_mask, past_key_values, labels, images, image_sizes, image_features
            )
            input_ids, position_ids, attention_mask, past_key_values, inputs_embeds, labels = prepared
        arguments = {
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "position_ids": position_ids,
            "past_key_values": past_key_values,
            "inputs_embeds": inputs_embeds,
        }
        if labels is None or not self.label_only_logits:
            output = super().forward(**arguments, labels=labels, **kwargs)
            if labels is not None:
                # Without a label, the mean over none is NaN.
                output.loss = output.loss.masked_fill((labels[:, 1:] == IGNORE_INDEX).all(), 0.0)
            return output
        output = self.model(**arguments, **kwargs)
        head, keep = self.get_output_embeddings(), self.keep_label_logits
        loss, logits = loss_where_labelled(output.last_hidden_state, labels, head, keep)
        return CausalLMOutputWithPast(
            loss=loss,
            logits=logits,
            past_key_values=output.past_key_values,
            hidden_states=output.hidden_states,
            attentions=output.attentions,
        )

    @torch.no_grad()
    def generate(
        self,
        inputs: torch.Tensor | None = None,
        images: Images | None = None,
        image_sizes: Sequence[Size] | None = None,
        image_features: Images | None = None,
        **kwargs: Any,
    ) -> Any:
        """Generates from ids `(batch, length)` with images; returns only the new tokens, `(batch, new)`.

        Rows are padded on the left; with padding on the right, the shorter rows would continue their padding
        (LLaVA#754). Give `attention_mask` if `inputs` is padded.
        """
        if "inputs_embeds" in kwargs:
            raise NotImplementedError("generate() takes ids and images, not `inputs_embeds`")
        kwargs.pop("position_ids", None)
        inputs = kwargs.pop("input_ids", None) if inputs is None else inputs
        given = kwargs.pop("attention_mask", None)
        attention_mask = torch.ones_like(inputs) if given is None else given
        if images is None and image_features is None:
            if (inputs == IMAGE_TOKEN_INDEX).any():
                raise ValueError("the prompt holds <image> tokens but no images were given")
            embed = self.get_input_embeddings()
            rows = [ids[keep.bool()] for ids, keep in zip(inputs, attention_mask, strict=True)]
            embeds, _, mask, _ = pad_rows([(embed(ids), torch.full_like(ids, IGNORE_INDEX)) for ids in rows], "left")
            attention_mask = mask.to(attention_mask.dtype)
        else:
            _, _, attention_mask, _, embeds, _ = self.prepare_inputs_labels_for_multimodal(
                inputs, None, attention_mask, None, None, images, image_sizes, image_features, padding_side="left"
            )
        return super().generate(inputs_embeds=embeds, attention_mask=attention_mask, **kwargs)


def _contiguous(_: nn.Module, arguments: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    """For a slice of states, torch multiplies row by row and copies a frozen weight for every row."""
    return (arguments[0].contiguous(), *arguments[1:])
