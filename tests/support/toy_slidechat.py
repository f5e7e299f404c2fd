"""A tiny SlideChat, saved as its trainer and the published files are: the packaged manifest at other sizes."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor
from toy_kinds import HIDDEN, write_qwen_tokenizer

from encoders.expected_shapes import expected_shapes
from model_store.convert.llava_config import ServedConfig, served_shapes
from model_store.manifest import Manifest, packaged_manifest
from training.seeded_weights import seeded_weights

WIDTH = 32
MAX_ROWS = 400
RANK, ALPHA = 2, 4
ADAPTED = "model.layers.0.self_attn.q_proj.weight"
Tensors = dict[str, Tensor]


def toy_manifest(**generation: Any) -> Manifest:
    """Everything as published but sizes, tiles of 64 px and 32-bit numbers."""
    published = packaged_manifest("slidechat")
    sizes = {"input_px": 64, "enlarged_px": 112, "width": 24, "depth": 1, "num_heads": 2, "feature_dim": WIDTH}
    llm = published.llm.model_copy(
        update={
            "max_model_len": 1024,
            "dtype": "float32",
            "generation": published.llm.generation.model_copy(update={"max_tokens": 12, **generation}),
        }
    )
    changes = {
        "slide_stage": published.slide_stage.model_copy(
            update={"in_chans": WIDTH, "num_heads": 2, "max_rows": MAX_ROWS}
        ),
        "projector": published.projector.model_copy(update={"width": WIDTH}),
        "llm": llm,
    }
    made = published.model_copy(update=changes)
    encoder = sizes | {"dtype": "float32", "batch_tiles": 8}
    return Manifest.model_validate(made.with_inputs(tiling={"tile_px": 64}, tile_encoder=encoder).model_dump())


@cache
def toy_shapes() -> dict[str, dict[str, tuple[int, ...]]]:
    """Of its encoders, by file."""
    return expected_shapes(toy_manifest())


class ToySlideChat:
    """Tensors by the trainer's names, and the folders that `convert` reads."""

    def __init__(self, folder: Path, manifest: Manifest | None = None, seed: int = 0) -> None:
        self.folder, self.manifest = folder, manifest or toy_manifest()
        rng = np.random.default_rng(seed)
        shapes = toy_shapes()
        self.conch, longnet = (
            drawn(shapes[file], rng)
            for file in (self.manifest.first_input.tile_encoder.weights, self.manifest.slide_stage.weights)
        )
        for part in ("tile_encoder", "llm", "llm_base"):
            (folder / part).mkdir(parents=True)
        vocabulary = write_qwen_tokenizer(folder / "llm_base")
        # As Qwen's own: a template that knows of no slides stands in the tokenizer's config.
        tokenizer = folder / "llm_base" / "tokenizer_config.json"
        tokenizer.write_text(json.dumps({**json.loads(tokenizer.read_text()), "chat_template": "{{ messages }}"}))
        self.config = qwen_config(vocabulary)
        (folder / "llm_base" / "config.json").write_text(json.dumps(self.config))
        projector = {"mm_hidden_size": WIDTH, "mm_projector_type": "mlp2x_gelu", "family": "qwen2"}
        served = drawn(served_shapes(ServedConfig.model_validate({**self.config, **projector})), rng)
        # Large enough beside what the layers add that another slide makes another answer.
        served["model.embed_tokens.weight"] *= 4
        self.served = served
        named = {
            name.replace("model.mm_projector.", "projector.model.") if "mm_projector" in name else f"llm.{name}": tensor
            for name, tensor in served.items()
        }
        self.trained: Tensors = named | {f"LongNet_encoder.{name}": tensor for name, tensor in longnet.items()}
        self._write_conch()

    def part(self, *prefixes: str) -> Tensors:
        """The trainer's tensors of these parts."""
        return {name: tensor for name, tensor in self.trained.items() if name.startswith(prefixes)}

    def write_trainer(self, *prefixes: str, entry: str | None = "state_dict", file: str = "stage2.pth") -> None:
        """One file, of all parts or of some, as mmengine (`state_dict`) or DeepSpeed (`module`) save it."""
        tensors = self.part(*prefixes) if prefixes else self.trained
        path = self.folder / "llm" / file
        path.parent.mkdir(exist_ok=True)
        torch.save({entry: tensors, "meta": {"iter": 500}} if entry else tensors, path)

    def write_shards(self) -> None:
        """The same in two files with an index."""
        names = sorted(self.trained)
        weight_map = {name: f"model-{1 + index % 2:05}-of-00002.safetensors" for index, name in enumerate(names)}
        for file in set(weight_map.values()):
            save_file({it: self.trained[it] for it in names if weight_map[it] == file}, self.folder / "llm" / file)
        index = {"metadata": {}, "weight_map": weight_map}
        (self.folder / "llm" / "model.safetensors.index.json").write_text(json.dumps(index))

    def write_base(self) -> None:
        """The weights of the language model beside its settings, as Qwen publishes them."""
        tensors = {name.removeprefix("llm."): tensor for name, tensor in self.part("llm.").items()}
        save_file(tensors, self.folder / "llm_base" / "model.safetensors", metadata={"format": "pt"})

    def write_folder(self, *, adapter: bool = False) -> None:
        """What xtuner's `pth_to_hf` makes; with `adapter` the base is to be changed by one."""
        llm = self.folder / "llm"
        for name, prefix in (("projector", "projector."), ("LongNet_encoder", "LongNet_encoder.")):
            tensors = {it.removeprefix(prefix): tensor for it, tensor in self.part(prefix).items()}
            (llm / name).mkdir()
            save_file(tensors, llm / name / "model.safetensors", metadata={"format": "pt"})
        if adapter:
            self.write_base()
            self._write_adapter(llm / "llm_adapter")
            return
        for file in (self.folder / "llm_base").iterdir():
            (llm / file.name).write_bytes(file.read_bytes())
        tensors = {name.removeprefix("llm."): tensor for name, tensor in self.part("llm.").items()}
        save_file(tensors, llm / "model.safetensors", metadata={"format": "pt"})

    def _write_adapter(self, folder: Path) -> None:
        folder.mkdir()
        said = {"peft_type": "LORA", "r": RANK, "lora_alpha": ALPHA}
        (folder / "adapter_config.json").write_text(json.dumps(said))
        module = f"base_model.model.{ADAPTED.removesuffix('.weight')}"
        factors = {f"{module}.lora_A.weight": self.factors[0], f"{module}.lora_B.weight": self.factors[1]}
        save_file(factors, folder / "adapter_model.safetensors")

    @property
    def factors(self) -> tuple[Tensor, Tensor]:
        """A and B of the adapter."""
        rng = np.random.default_rng(9)
        a, b = rng.standard_normal((RANK, HIDDEN)), rng.standard_normal((HIDDEN, RANK))
        return torch.from_numpy(a).float(), torch.from_numpy(b).float()

    def _write_conch(self) -> None:
        """Beside what nothing here reads."""
        text = {"text.token_embedding.weight": torch.ones(3, 4), "logit_scale": torch.tensor(2.0)}
        caption = {"visual.attn_pool_caption.query": torch.ones(256, 4)}
        tensors = {f"visual.{name}": tensor for name, tensor in self.conch.items()} | text | caption
        torch.save(tensors, self.folder / "tile_encoder" / "pytorch_model.bin")


def drawn(shapes: Any, rng: np.random.Generator) -> Tensors:
    return {name: torch.from_numpy(array) for name, array in seeded_weights(shapes, rng).items()}


def qwen_config(vocabulary: int) -> dict[str, Any]:
    """As Qwen2.5's config.json says it."""
    return {
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        "bos_token_id": 0,
        "eos_token_id": 2,
        "hidden_act": "silu",
        "hidden_size": HIDDEN,
        "intermediate_size": 96,
        "max_position_embeddings": 2048,
        "num_attention_heads": 2,
        "num_hidden_layers": 2,
        "num_key_value_heads": 1,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1_000_000.0,
        "sliding_window": 131072,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "use_sliding_window": False,
        "vocab_size": vocabulary,
    }
