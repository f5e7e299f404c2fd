"""Maps published tensor names to served ones: prefixes to rewrite, patterns to drop. Data; nothing is read here.

What is neither known nor dropped here is an error of the conversion, so an unexpected tensor is never lost silently.
"""

import re
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class NameMap:
    """`prefixes` are applied one after the other where they fit; what a `dropped` pattern matches is not served."""

    prefixes: tuple[tuple[str, str], ...] = ()
    dropped: tuple[str, ...] = ()

    def served_name(self, published: str) -> str | None:
        """The tensor's name in the served model, or None when it has no place there."""
        name = published
        for old, new in self.prefixes:
            if name.startswith(old):
                name = new + name.removeprefix(old)
        return None if any(re.match(pattern, name) for pattern in self.dropped) else name


TILE_ENCODER: Final = NameMap()

SLIDE_ENCODER: Final = NameMap(
    dropped=(
        r"pos_embed$",  # a buffer that is computed: 3 GB where it was saved
        r"mask_token$|decoder",  # the half of the masked autoencoder that pre-training alone needs
    )
)

# How many steps a batch norm was trained for: whole numbers that nothing reads in evaluation.
CELLVIT: Final = NameMap(dropped=(r".*\.num_batches_tracked$",))

# DINO trains a wrapped backbone with a head that nothing but its loss reads.
HIPT: Final = NameMap(prefixes=(("module.", ""), ("backbone.", "")), dropped=(r"head\.",))

CONCH_IMAGE: Final = NameMap(
    prefixes=(("module.", ""), ("visual.", "")),
    dropped=(
        r"attn_pool_caption\.|ln_caption\.",  # queries that the captioner reads: the reference throws them away
        r"text\.|text_decoder\.|logit_scale$",
    ),
)

# Its blocks are given tokens of cells: no pixels, no positions.
DINOV2_BLOCKS: Final = NameMap(dropped=(r"patch_embed\.|pos_embed$|mask_token$",))

HIERARCHICAL_PROJECTOR: Final = NameMap()

# SlideChat's trainer saves one module of three parts: two targets share them, and what is of no part is refused.
SLIDECHAT_LLM: Final = NameMap(
    prefixes=(("module.", ""), ("llm.", ""), ("projector.model.", "model.mm_projector.")),
    dropped=(
        r"LongNet_encoder\.",
        r"model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq$",  # computed; saved by old transformers
    ),
)

SLIDECHAT_LONGNET: Final = NameMap(
    prefixes=(("module.", ""), ("LongNet_encoder.", "")), dropped=(r"llm\.", r"projector\.model\.")
)

QWEN2: Final = NameMap(prefixes=(("base_model.model.", ""),), dropped=(r".*\.rotary_emb\.inv_freq$",))

LLAVA: Final = NameMap(
    prefixes=(
        ("base_model.model.", ""),  # what PEFT wraps around a model: non_lora_trainables.bin has it
        ("model.model.", "model."),
        ("model.lm_head.", "lm_head."),
    ),
    dropped=(
        r"model\.vision_tower\.",  # the reference loads it and never runs it: features go straight to the projector
        r"model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq$",  # computed; saved by old transformers
    ),
)
