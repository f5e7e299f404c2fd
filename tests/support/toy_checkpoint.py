"""A tiny LLaVA and tiny encoders, saved as the reference's training code and the published files are.

All numbers are multiples of 2^-10, those of the adapter of 2^-6, so that sums are exact in fp32 and the three layouts
can be compared bit for bit.
"""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from untrained_model import untrained_manifest, untrained_tokenizer

from encoders.expected_shapes import expected_shapes
from model_store.manifest import Manifest, packaged_manifest
from training.language_model.demo_tokenizer import PLACEHOLDER

HIDDEN, LAYERS, HEADS, INNER = 64, 2, 2, 96  # a head of 32: vLLM on CPU has no smaller one
RANK, ALPHA = 4, 8
LINEARS = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj")
LINEARS += ("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")
TOWER = "model.vision_tower.vision_tower.vision_model.embeddings.class_embedding"
INV_FREQ = "model.layers.0.self_attn.rotary_emb.inv_freq"

Tensors = dict[str, Tensor]


def toy_manifest() -> Manifest:
    """The untrained model's encoders and tiling with the published model's downloads."""
    published = packaged_manifest("wsi-llava")
    return untrained_manifest().model_copy(update={"name": "toy", "downloads": published.downloads})


def grid(rng: np.random.Generator, shape: tuple[int, ...], step: float, scale: float = 1.0) -> Tensor:
    return torch.from_numpy(np.round(rng.standard_normal(shape) * scale / step).astype(np.float32) * np.float32(step))


def llama_tensors(vocabulary: int, seed: int = 0) -> Tensors:
    """A Llama under its published names, large enough beside its norms that greedy answers vary."""
    rng = np.random.default_rng(seed)
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (vocabulary, HIDDEN)}
    for layer in range(LAYERS):
        prefix = f"model.layers.{layer}"
        shapes |= {f"{prefix}.{linear}.weight": (HIDDEN, HIDDEN) for linear in LINEARS[:4]}
        shapes |= {f"{prefix}.mlp.{name}_proj.weight": (INNER, HIDDEN) for name in ("gate", "up")}
        shapes |= {f"{prefix}.mlp.down_proj.weight": (HIDDEN, INNER)}
        shapes |= {f"{prefix}.{name}_layernorm.weight": (HIDDEN,) for name in ("input", "post_attention")}
    shapes |= {"model.norm.weight": (HIDDEN,), "lm_head.weight": (vocabulary, HIDDEN)}
    return {name: grid(rng, shape, 2**-10, 0.25 if len(shape) > 1 else 1.0) for name, shape in shapes.items()}


def projector_tensors(width: int, seed: int = 1) -> Tensors:
    rng = np.random.default_rng(seed)
    shapes = {"0.weight": (HIDDEN, width), "0.bias": (HIDDEN,), "2.weight": (HIDDEN, HIDDEN), "2.bias": (HIDDEN,)}
    return {f"model.mm_projector.{name}": grid(rng, shape, 2**-10, 0.25) for name, shape in shapes.items()}


def lora_tensors(seed: int = 2) -> Tensors:
    """Both factors of every linear layer by `<module>.lora_A` / `<module>.lora_B`."""
    rng = np.random.default_rng(seed)
    factors: Tensors = {}
    for layer in range(LAYERS):
        for linear in LINEARS:
            rows = INNER if "gate" in linear or "up_" in linear else HIDDEN
            columns = INNER if "down" in linear else HIDDEN
            module = f"model.layers.{layer}.{linear}"
            factors[f"{module}.lora_A"] = grid(rng, (RANK, columns), 2**-6, 0.1)
            factors[f"{module}.lora_B"] = grid(rng, (rows, RANK), 2**-6, 0.1)
    return factors


def merged(base: Tensors, factors: Tensors) -> Tensors:
    """W + alpha / r · B · A, written out."""
    final = dict(base)
    for name in factors:
        if name.endswith(".lora_A"):
            module = name.removesuffix(".lora_A")
            delta = factors[f"{module}.lora_B"].double() @ factors[name].double()
            weight = f"{module}.weight"
            final[weight] = (base[weight].double() + ALPHA / RANK * delta).float()
    return final


def llava_config(vocabulary: int, width: int) -> dict[str, Any]:
    """As LlavaConfig.save_pretrained writes it."""
    return {
        "_name_or_path": "./llava-v1.5-7b",
        "architectures": ["LlavaLlamaForCausalLM"],
        "model_type": "llava_llama",
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
        "hidden_act": "silu",
        "hidden_size": HIDDEN,
        "intermediate_size": INNER,
        "max_position_embeddings": 2048,
        "mm_hidden_size": width,
        "mm_patch_merge_type": "flat",
        "mm_projector_lr": 2e-5,
        "mm_projector_type": "mlp2x_gelu",
        "mm_use_im_patch_token": False,
        "mm_use_im_start_end": False,
        "mm_vision_select_layer": -2,
        "mm_vision_tower": "openai/clip-vit-large-patch14-336",
        "num_attention_heads": HEADS,
        "num_hidden_layers": LAYERS,
        "num_key_value_heads": HEADS,
        "rms_norm_eps": 1e-5,
        "rope_scaling": None,
        "tie_word_embeddings": False,
        "tokenizer_model_max_length": 2048,
        "torch_dtype": "float16",
        "use_mm_proj": True,
        "vocab_size": vocabulary,
    }


class Toy:
    """One tiny model; the `write_…` methods lay it out under `<folder>/<part>/` as `fetch` would."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.folder, self.manifest = folder, manifest
        self.tokenizer = untrained_tokenizer()
        self.vocabulary = self.tokenizer.get_vocab_size(with_added_tokens=True) - 1
        width = manifest.projector.width
        self.base = llama_tensors(self.vocabulary)
        self.factors = lora_tensors()
        self.projector = projector_tensors(width)
        self.config = llava_config(self.vocabulary, width)
        self.final = merged(self.base, self.factors) | self.projector

    def write_encoders(self) -> None:
        """`pytorch_model.bin` and `slide_encoder.pth`."""
        shapes, rng = expected_shapes(self.manifest), np.random.default_rng(3)
        tile = {name: grid(rng, shape, 2**-10, 0.1) for name, shape in shapes["tile_encoder/model.safetensors"].items()}
        slide = {
            name: grid(rng, shape, 2**-10, 0.1) for name, shape in shapes["slide_encoder/model.safetensors"].items()
        }
        extras = {"pos_embed": torch.zeros(1, 5, 4), "mask_token": torch.zeros(1, 1, 4)}
        self.save("tile_encoder/pytorch_model.bin", tile)
        args = argparse.Namespace(lr=1e-4)
        self.save("slide_encoder/slide_encoder.pth", {"model": slide | extras, "epoch": 3, "args": args})

    def write_merged(self, shards: int = 2) -> None:
        """Layout (a), as Trainer._save leaves it: with the vision tower, in numbered pickles and an index."""
        extras = {TOWER: torch.ones(8), INV_FREQ: torch.ones(8)}
        self._write_shards("llm", self.final | extras, shards)
        self.write_json("llm/config.json", self.config)
        self.write_tokenizer("llm")

    def write_lora(self) -> None:
        """Layout (b), as train.py saves it with lora_enable: PEFT's adapter beside what else was trained."""
        keys = {f"base_model.model.{name}.weight": tensor for name, tensor in self.factors.items()}
        self.save("llm/adapter_model.bin", keys)
        trainables = {f"base_model.model.{name}": tensor for name, tensor in self.projector.items()}
        self.save("llm/non_lora_trainables.bin", trainables)
        adapter = {"peft_type": "LORA", "r": RANK, "lora_alpha": ALPHA, "bias": "none", "lora_dropout": 0.05}
        self.write_json("llm/adapter_config.json", adapter)
        self.write_json("llm/config.json", self.config)
        # The base is itself a LLaVA, with a projector of its own.
        other = projector_tensors(self.manifest.projector.width, seed=9)
        self._write_base(self.base | other)

    def write_projector(self) -> None:
        """Layout (c), as safe_save_model_for_hf_trainer saves it with tune_mm_mlp_adapter: the base has none."""
        self.save("llm/mm_projector.bin", self.projector)
        self.write_json("llm/config.json", self.config)
        self._write_base({name: tensor for name, tensor in self.final.items() if name not in self.projector})

    def save(self, path: str, content: Mapping[str, Any]) -> None:
        (self.folder / path).parent.mkdir(parents=True, exist_ok=True)
        torch.save(content, self.folder / path)

    def load(self, path: str) -> dict[str, Any]:
        """Without mapping the file, so that it can be written again."""
        return dict(torch.load(self.folder / path, weights_only=False))

    def write_json(self, path: str, content: Mapping[str, Any]) -> None:
        (self.folder / path).parent.mkdir(parents=True, exist_ok=True)
        (self.folder / path).write_text(json.dumps(content))

    def write_tokenizer(self, part: str) -> None:
        """A tokenizer without the placeholder, which the reference never has as a token."""
        document = json.loads(self.tokenizer.to_str())
        document["added_tokens"] = [token for token in document["added_tokens"] if token["content"] != PLACEHOLDER]
        self.write_json(f"{part}/tokenizer.json", document)
        tokens = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<unk>"}
        self.write_json(f"{part}/tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast", **tokens})

    def _write_base(self, tensors: Tensors) -> None:
        self._write_shards("llm_base", tensors, 2)
        self.write_json("llm_base/config.json", {**self.config, "mm_hidden_size": 1})
        self.write_tokenizer("llm_base")

    def _write_shards(self, part: str, tensors: Tensors, count: int) -> None:
        if count == 1:
            return self.save(f"{part}/pytorch_model.bin", tensors)
        names = list(tensors)
        weight_map = {}
        for number in range(count):
            file = f"pytorch_model-{number + 1:05}-of-{count:05}.bin"
            mine = names[number::count]
            self.save(f"{part}/{file}", {name: tensors[name] for name in mine})
            weight_map |= dict.fromkeys(mine, file)
        self.write_json(f"{part}/pytorch_model.bin.index.json", {"metadata": {}, "weight_map": weight_map})
        return None
