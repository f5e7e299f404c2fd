"""MLLM-HWSI's published files with random weights of toy size, laid out as their publishers lay them out."""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from toy_kinds import documented_manifest, write_toy_llm

from encoders.expected_shapes import expected_shapes
from model_store.contracts.hierarchical import Hierarchical
from model_store.manifest import Manifest, packaged_manifest
from training.seeded_weights import seeded_weights

Weights = dict[str, Tensor]
SYSTEM = "You are an expert histopathology assistant."
COLOURS = ([0.5, 0.45, 0.55], [0.25, 0.5, 0.4])
# As Qwen2.5's own: without a system message it would put in one of its own, and it knows tools.
TEMPLATE = """\
{%- if messages[0].role == 'system' %}
    {{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
{%- else %}
    {{- '<|im_start|>system\\nYou are Qwen.<|im_end|>\\n' }}
{%- endif %}
{%- if tools %}{{- raise_exception('no tools') }}{%- endif %}
{%- for message in messages %}
    {%- if loop.first and message.role == 'system' %}{%- continue %}{%- endif %}
    {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""


def toy_hwsi_manifest(name: str = "toy-hwsi") -> Manifest:
    """The packaged one with networks of the documented toy sizes, and digests that nobody knows."""
    prompt = {"kind": "chatml", "system": SYSTEM, "rows": "front"}
    toy = documented_manifest(("slide_stage", "hierarchical"), ("projector", "none"), prompt=prompt, inputs={})
    packaged = packaged_manifest("mllm-hwsi")
    assert packaged.downloads is not None
    unknown = {"digests": "unrecorded", "sha256": {}}
    downloads = {part: it.model_copy(update=unknown) for part, it in packaged.downloads.items()}
    llm = toy.llm.model_copy(update={"generation": packaged.llm.generation, "served_name": name})
    return toy.model_copy(update={"name": name, "downloads": downloads, "llm": llm})


def write_published_hwsi(manifest: Manifest, downloads: Path, seed: int = 0) -> dict[str, Weights]:
    """Writes `<downloads>/<part>/…`; returns what the networks and the language model must become, by part."""
    stage = manifest.slide_stage
    assert isinstance(stage, Hierarchical)
    rng, shapes, networks = np.random.default_rng(seed), expected_shapes(manifest), {}
    for name, file in stage.weights_files().items():
        networks[name] = _drawn(shapes[file], rng)
    save = {
        "vit256/vit256_small_dino.pth": _dino(networks["vit256"]),
        "vit4k/vit_4096_xs_dino.pth": _dino(networks["vit4k"]),
        "conch/pytorch_model.bin": _coca(networks["conch"]),
        "cellvit/CellViT-256-x40-AMP.pth": _cellvit(networks["cellvit"], stage),
    }
    for path, content in save.items():
        (downloads / path).parent.mkdir(parents=True, exist_ok=True)
        torch.save(content, downloads / path)
    (downloads / "cell_fusion").mkdir()
    save_file(_dinov2(networks["cell_fusion"]), downloads / "cell_fusion" / "model.safetensors")
    llm = downloads / "llm"
    write_toy_llm(downloads, manifest, "qwen2", rng)
    networks["llm"] = load_file(llm / "model.safetensors")
    config = json.loads((llm / "config.json").read_text())
    # As transformers 5 writes it.
    config["rope_parameters"] = {"rope_theta": config.pop("rope_theta"), "rope_type": "default"}
    (llm / "config.json").write_text(json.dumps({**config, "use_sliding_window": False, "bos_token_id": 1}))
    (llm / "chat_template.jinja").write_text(TEMPLATE)
    of_qwen = {"do_sample": True, "temperature": 0.7, "top_p": 0.8, "top_k": 20, "repetition_penalty": 1.05}
    (llm / "generation_config.json").write_text(json.dumps(of_qwen))
    torch.save({"vl_projector_state_dict": networks["projector"]}, llm / "vl_projector.pt")
    spec = stage.projector
    sizes = {"llm_dim": spec.llm_dim, "hidden_dim": spec.hidden_dim, "num_query_tokens": spec.query_tokens}
    more = {"dropout": 0.1, "use_layernorm": True, "projector_type": "mlp"}
    (llm / "projector_config.json").write_text(json.dumps({**sizes, **more}))
    return networks


def untrained(projector: Weights) -> Weights:
    """As the public script of the last stage makes and saves it: norms as they were built."""
    norms = {name.removesuffix(".weight") for name, it in projector.items() if it.dim() == 1 and "weight" in name}
    built = {f"{norm}.weight": torch.ones_like(projector[f"{norm}.weight"]) for norm in norms}
    return {**projector, **built, **{f"{norm}.bias": torch.zeros_like(projector[f"{norm}.bias"]) for norm in norms}}


def _drawn(shapes: Mapping[str, tuple[int, ...]], rng: np.random.Generator) -> Weights:
    drawn = {name: torch.from_numpy(it) for name, it in seeded_weights(shapes, rng).items()}
    # A batch norm's variances are positive.
    return {name: it.abs() + 0.5 if name.endswith("running_var") else it for name, it in drawn.items()}


def _dino(of: Weights) -> dict[str, Any]:
    """A whole training checkpoint, with the head that its loss reads and numbers of numpy's."""
    teacher = {f"backbone.{name}": it for name, it in of.items()} | {"head.mlp.0.weight": torch.ones(4, 12)}
    return {
        "student": {f"module.{name}": it + 1 for name, it in teacher.items()},
        "teacher": teacher,
        "optimizer": {"state": {}, "param_groups": [{"lr": np.float64(0.1), "params": [0]}]},
        "epoch": 100,
        "args": argparse.Namespace(arch="vit_small"),
        "dino_loss": {"center": torch.zeros(1, 8)},
    }


def _coca(of: Weights) -> Weights:
    return {f"visual.{name}": it for name, it in of.items()} | {
        "visual.attn_pool_caption.query": torch.ones(256, 4),
        "text.token_embedding.weight": torch.ones(7, 4),
        "logit_scale": torch.tensor(2.0),
    }


def _cellvit(of: Weights, stage: Hierarchical) -> dict[str, Any]:
    counters = {name.replace("running_mean", "num_batches_tracked"): torch.tensor(3) for name in of if "mean" in name}
    mean, std = COLOURS
    config = {
        "data.num_nuclei_classes": stage.cellvit.cell_kinds,
        "data.num_tissue_classes": stage.cellvit.tissue_kinds,
        "transformations.normalize.mean": mean,
        "transformations.normalize.std": std,
    }
    return {"arch": "CellViT256", "config": config, "model_state_dict": of | counters, "best_metric": np.float64(0.5)}


def _dinov2(of: Weights) -> Weights:
    return of | {"pos_embed": torch.ones(1, 5, 16), "patch_embed.proj.bias": torch.ones(16)}
