"""`models verify`: is this the model that was installed, and does it fit its own description?

Reads digests and safetensors headers; needs no memory and no GPU, and loads no weights.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from safetensors import SafetensorError, safe_open

from model_store.convert.llava_config import float8_shapes, packed_shapes, served_config_of, served_shapes
from model_store.convert.packed_weights import packed_form
from model_store.errors import ModelError
from model_store.files.checkpoint_files import read_json, shards_of
from model_store.files.write_safetensors import Shape
from model_store.installed import InstalledModel

# vLLM's names for what a manifest says.
_QUANT_METHODS: Final = {"none": None, "fp8": "compressed-tensors", "awq": "awq", "gptq": "gptq"}


def verify_shapes(model: InstalledModel, shapes: Mapping[str, Mapping[str, Shape]]) -> int:
    """Compares name and shape of every tensor with the architectures; returns how many there are.

    `shapes` are the encoders', by file of weights. Raises ModelError that names the first tensor that is missing, left
    over or of another shape.
    """
    parts = [(part, [model.file(file)], shapes[file]) for part, file in model.manifest.weights_files().items()]
    parts.append(("language model", shards_of(model.llm_folder), _llm_shapes(model)))
    for part, files, expected in parts:
        _compare(part, _installed_shapes(files), expected)
    return sum(len(expected) for _, _, expected in parts)


def _llm_shapes(model: InstalledModel) -> Mapping[str, Shape]:
    served = read_json(model.llm_folder / "config.json")
    config, projector = served_config_of(served), model.manifest.projector
    if config.mm_projector_type != projector.plugin_type:
        raise ModelError("The model's llm/config.json and its manifest disagree on the kind of projector.")
    if config.mm_hidden_size != model.manifest.projector_width:
        raise ModelError("The model's llm/config.json and its manifest disagree on the projector's width.")
    if projector.plugin_type == "identity" and config.mm_hidden_size != config.hidden_size:
        raise ModelError("Without a projector rows must be as wide as the language model; the manifest's are not.")
    quantization, shapes = model.manifest.llm.quantization, served_shapes(config)
    said = served.get("quantization_config", {})
    if said.get("quant_method") != _QUANT_METHODS[quantization]:
        raise ModelError("The model's llm/config.json and its manifest disagree on how it is quantised.")
    if quantization == "none":
        return shapes
    return float8_shapes(shapes) if quantization == "fp8" else packed_shapes(shapes, packed_form(said))


def _installed_shapes(files: Sequence[Path]) -> dict[str, Shape]:
    shapes: dict[str, Shape] = {}
    for file in files:
        try:
            with safe_open(file, framework="np") as tensors:
                shapes |= {name: tuple(tensors.get_slice(name).get_shape()) for name in tensors.keys()}  # noqa: SIM118
        except (OSError, SafetensorError) as error:
            raise ModelError(f"{file.parent.name}/{file.name} is damaged; install the model again.") from error
    return shapes


def _compare(part: str, installed: Mapping[str, Shape], expected: Mapping[str, Shape]) -> None:
    for name in sorted(installed.keys() | expected.keys()):
        if name not in installed:
            raise ModelError(f"The {part} lacks the tensor {name!r}; install the model again.")
        if name not in expected:
            raise ModelError(f"The {part} has a tensor {name!r} that its manifest has no place for.")
        if installed[name] != expected[name]:
            raise ModelError(
                f"The {part}'s tensor {name!r} has the shape {list(installed[name])}, "
                f"its manifest says {list(expected[name])}."
            )
