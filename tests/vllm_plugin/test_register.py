"""The entry point: light to import, safe to call twice, and firm about the version of vLLM."""

import subprocess
from pathlib import Path

import pytest

SCRIPT = """
import sys
import eyepiece_vllm
assert not {"torch", "vllm", "transformers"} & set(sys.modules), "the import is not light"

import vllm
from importlib.metadata import entry_points
(entry,) = entry_points(group="vllm.general_plugins", name="eyepiece")
entry.load()()
eyepiece_vllm.register()
assert set(eyepiece_vllm.ARCHITECTURES) <= set(vllm.ModelRegistry.get_supported_archs())
assert "eyepiece_vllm.model" not in sys.modules, "the model is imported before it is needed"

vllm.__version_tuple__ = (0, 33, 0)
try:
    eyepiece_vllm.register()
except RuntimeError as error:
    assert "needs vLLM 0.32" in str(error)
else:
    raise AssertionError("another version was accepted")

import importlib
from transformers import AutoConfig
config = AutoConfig.for_model("wsi_llava", slide_token_width=768, mm_hidden_size=1024)
assert config.text_config.model_type == "llama"
assert AutoConfig.for_model("slide_qwen2").text_config.model_type == "qwen2"
plain = {"mm_projector_type": "identity", "slide_token_width": 64, "mm_hidden_size": 64}
assert AutoConfig.for_model("slide_qwen2", **plain, text_config={"hidden_size": 64}).mm_projector_type == "identity"
for wrong in ({"slide_token_width": 1025}, {"slide_token_width": 0}, {"max_slide_tokens": 0}, plain):
    try:
        AutoConfig.for_model("wsi_llava", **wrong)
    except Exception as error:
        assert "must be" in str(error), error
    else:
        raise AssertionError(f"{wrong} was accepted")
"""


@pytest.mark.vllm
def test_registering_is_light_idempotent_and_bound_to_one_version(vllm_python: Path, tmp_path: Path) -> None:
    run = subprocess.run([vllm_python, "-c", SCRIPT], cwd=tmp_path, capture_output=True, text=True)

    assert run.returncode == 0, run.stderr
