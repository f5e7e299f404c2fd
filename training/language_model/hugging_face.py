"""The only door to transformers: it imports torchvision, which beside a CPU torch needs help first."""

import encoders.tile_encoder.torchvision_ops as torchvision_ops  # noqa: F401, I001 - declares missing operators; must come first
from transformers import LlamaConfig as LlamaConfig
from transformers import LlamaForCausalLM as LlamaForCausalLM
