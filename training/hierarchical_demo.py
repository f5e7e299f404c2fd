"""The demo of levels: a model of the hierarchical kind with drawn weights and a tiny Qwen2, a few hundred kilobytes.

It is not trained. It is there so that the whole way can be gone without published weights: regions, pictures, cells,
rows in front of the text, an answer. Numbers come from one seed, so the same files are written on every machine.
"""

import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from encoders.expected_shapes import expected_shapes
from encoders.golden_vector import record_golden
from model_store.compose import compose_model
from model_store.contracts.hierarchical import Hierarchical
from model_store.convert.llava_config import ServedConfig, served_shapes
from model_store.errors import ModelError
from model_store.installed import InstalledModel
from model_store.manifest import MANIFEST_FILE, Manifest, load_manifest
from training.language_model.demo_corpus import demo_corpus
from training.language_model.qwen_tokenizer import END_OF_TURN, write_qwen_tokenizer
from training.seeded_weights import seeded_weights

MANIFEST: Final = Path(__file__).with_name("hierarchical_demo.toml")
_SEED: Final = 19
_MOST_TOKENS: Final = 640
# Drawn maps lie about 0: with so much less background a watershed finds cells, and they are of a kind.
_BIAS: Final = 0.6
_NUCLEUS: Final = "nuclei_binary_map_decoder.decoder0_header.2.bias"
_KIND: Final = "nuclei_type_maps_decoder.decoder0_header.2.bias"

_Weights = dict[str, NDArray[np.floating[Any]]]


def write_hierarchical_demo(folder: Path) -> InstalledModel:
    """Writes the model in the layout of an installed one, in place of what was in `folder`, which is called as it is.

    Takes a minute, most of it for the tokenizer. Raises ModelError for a folder of another name.
    """
    manifest = load_manifest(MANIFEST)
    if folder.name != manifest.name:
        raise ModelError(f"The model is {manifest.name!r}, the folder is called {folder.name!r}; give it that name.")
    shapes, rng = expected_shapes(manifest), np.random.default_rng(_SEED)
    with tempfile.TemporaryDirectory() as scratch:
        draft = Path(scratch)
        shutil.copyfile(MANIFEST, draft / MANIFEST_FILE)
        for file, tensors in shapes.items():
            _save(draft / file, _encoder(file, tensors, manifest, rng))
        _write_llm(draft / manifest.llm.path, manifest, rng)
        model = compose_model(draft, folder.parent, shapes)
    return record_golden(model, "cpu")


def _encoder(
    file: str, shapes: Mapping[str, tuple[int, ...]], manifest: Manifest, rng: np.random.Generator
) -> _Weights:
    weights: _Weights = dict(seeded_weights(shapes, rng))
    stage = manifest.slide_stage
    assert isinstance(stage, Hierarchical)
    if file == stage.cellvit.weights:
        weights[_NUCLEUS] = np.array([-_BIAS, _BIAS], np.float32)
        weights[_KIND] = np.array([-4 * _BIAS] + [0] * (stage.cellvit.cell_kinds - 1), np.float32)
    return weights


def _write_llm(llm: Path, manifest: Manifest, rng: np.random.Generator) -> None:
    llm.mkdir()
    said = {
        "model_type": "qwen2",
        "vocab_size": write_qwen_tokenizer(demo_corpus(), llm, _MOST_TOKENS),
        "hidden_size": manifest.row_width,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        # Heads of 32, vLLM's smallest.
        "num_attention_heads": manifest.row_width // 32,
        "num_key_value_heads": 1,
        "max_position_embeddings": manifest.llm.max_model_len,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10_000.0,
        "tie_word_embeddings": False,
        "bos_token_id": 0,
        "eos_token_id": END_OF_TURN,
    }
    (llm / "config.json").write_text(json.dumps(said))
    projector = {"mm_hidden_size": manifest.projector_width, "mm_projector_type": manifest.projector.plugin_type}
    config = ServedConfig.model_validate({**said, **projector, "family": "qwen2"})
    weights: _Weights = dict(seeded_weights(served_shapes(config), rng))
    # Large enough beside what the layers add that another slide makes another answer.
    weights["model.embed_tokens.weight"] *= 4
    _save(llm / "model.safetensors", weights)


def _save(path: Path, weights: _Weights) -> None:
    """In 16 bits, whatever they are computed in: half the bytes in the repository and the wheel."""
    path.parent.mkdir(exist_ok=True)
    halves = {name: np.ascontiguousarray(values, dtype=np.float16) for name, values in weights.items()}
    save_file(halves, path, metadata={"format": "pt"})
