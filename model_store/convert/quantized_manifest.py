"""The manifest of a model whose language model is quantised: it answers otherwise, so it has another name."""

import re
from typing import Final

from model_store.errors import ModelError
from model_store.manifest import NAME_PATTERN, Download, Manifest, Quantization

# For a language model that whoever converts it has quantised, so that no manifest names it.
OWN_QUANTIZED: Final = Download(
    repository="a folder",
    revision="unrecorded",
    gated=False,
    licence="that of the model it was made from",
    patterns=("*",),
    digests="unrecorded",
)


def quantized_manifest(manifest: Manifest, quantization: Quantization) -> Manifest:
    """The same model under the name `<name>-<quantization>`, which every answer and `/v1/models` give.

    The encoders and so the encoder id are the same: slides need not be encoded again. Raises ModelError where the
    manifest's language model cannot be quantised.
    """
    name = f"{manifest.name}-{quantization}"
    if not re.fullmatch(NAME_PATTERN, name):
        raise ModelError(f"The name {name!r} is too long for a model; give the manifest a shorter one.")
    if manifest.llm.dtype == "float32":
        raise ModelError(
            "A quantised language model computes in 16 bits: set the manifest's llm.dtype to float16 or bfloat16."
        )
    served = f"{manifest.llm.served_name}-{quantization}"
    llm = manifest.llm.model_copy(update={"quantization": quantization, "served_name": served})
    return manifest.model_copy(update={"name": name, "title": f"{manifest.title}, {quantization}", "llm": llm})
