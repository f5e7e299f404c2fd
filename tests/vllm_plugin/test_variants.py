"""Quantised language models and several ranks in a real vLLM on a CPU: `make vllm-variants`, a start of vLLM for each.

What vLLM says of each token is compared with plain transformers on the matrices that the quantised ones stand for.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from packed_checkpoints import Method, language_model_of, packed_model, write_beside
from safetensors.torch import load_file
from tokenizers import Tokenizer
from toy_checkpoint import Toy
from vllm_requests import npy, question, slide_part, slide_tokens
from vllm_server import VllmServer, running_eyepiece_llm, running_vllm

from encoders.expected_shapes import expected_shapes
from model_store.contracts.fields import Dtype
from model_store.convert.convert_model import convert_model
from model_store.installed import InstalledModel
from model_store.manifest import Quantization, packaged_manifest
from model_store.packaged_models import PACKAGED, install_packaged

pytestmark = pytest.mark.vllm

Reference = Callable[[dict[str, Any]], list[Any]]
QUESTIONS = ("What is the histological type?", "Is there necrosis?", "Which grade?")
MAX_TOKENS = 16
# Which of vLLM's kernels must have run; its log names it.
KERNELS: dict[Quantization, str] = {
    "none": "",
    "fp8": "ChannelWiseTorchFP8ScaledMMLinearKernel for CompressedTensorsW8A8Fp8",
    "awq": "CPUWNA16LinearKernel for AutoAWQ",
    "gptq": "CPUWNA16LinearKernel for AutoGPTQ",
}
# Largest difference in the natural logarithm. Measured, from its own matrices and from the whole ones: fp8 0.0147 and
# 0.14, awq 0.0036 and 0.37, gptq 0.0040 and 0.10. An input near the middle of two 8-bit values may fall to either.
LIMITS: dict[Quantization, float] = {"fp8": 0.03, "awq": 0.01, "gptq": 0.01}


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Toy:
    """The demo model's language model, laid out as a published one: trained weights keep what rounding does small."""
    packaged = PACKAGED / "demo" / "llm"
    demo = packaged_manifest("demo").model_copy(update={"downloads": packaged_manifest("wsi-llava").downloads})
    toy = Toy(tmp_path_factory.mktemp("downloads"), demo)
    toy.tokenizer = Tokenizer.from_file(str(packaged / "tokenizer.json"))
    toy.final = {name: tensor.float() for name, tensor in load_file(packaged / "model.safetensors").items()}
    toy.projector = {name: tensor for name, tensor in toy.final.items() if "mm_projector" in name}
    served = json.loads((packaged / "config.json").read_text())
    toy.config = {**served["text_config"], **{key: served[key] for key in ("mm_hidden_size", "mm_projector_type")}}
    toy.write_encoders()
    toy.write_merged(shards=1)
    return toy


@pytest.fixture(scope="module")
def converted(
    published: Toy, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[Quantization, Dtype], InstalledModel]:
    def convert(quantize: Quantization, dtype: Dtype) -> InstalledModel:
        if quantize in ("awq", "gptq"):
            method: Method = "awq" if quantize == "awq" else "gptq"
            write_beside(published, packed_model(language_model_of(published, published.final), method, group=64))
        llm = published.manifest.llm.model_copy(update={"dtype": dtype})
        manifest = published.manifest.model_copy(update={"llm": llm})
        models_dir, shapes = tmp_path_factory.mktemp("models"), expected_shapes(manifest)
        return convert_model(manifest, published.folder, models_dir, shapes, lambda line: None, quantize)

    return convert


def answers_of(vllm: VllmServer, slides: list[str]) -> list[dict[str, Any]]:
    """Greedy answers with the log-probability of each of their tokens."""
    answers = []
    for slide in slides:
        for text in QUESTIONS:
            message = question(f"<image> \n{text}", slide_part(slide))
            body = vllm.chat([message], max_tokens=MAX_TOKENS, logprobs=True, return_token_ids=True)
            choice = body.raise_for_status().json()["choices"][0]
            logprobs = [token["logprob"] for token in choice["logprobs"]["content"]]
            answers.append({"slide": slide, "question": text, "token_ids": choice["token_ids"], "logprobs": logprobs})
    return answers


def farthest(folder: Path, answers: list[dict[str, Any]], plain_transformers: Reference) -> float:
    """The largest difference of a token's log-probability from the reference's on that folder."""
    scored = [{key: answer[key] for key in ("slide", "question", "token_ids")} for answer in answers]
    expected = plain_transformers({"folder": str(folder), "scored": scored})
    said = [np.array(answer["logprobs"]) for answer in answers]
    return max(float(np.abs(mine - theirs).max()) for mine, theirs in zip(said, expected, strict=True))


@pytest.mark.parametrize(("quantize", "dtype"), [("fp8", "float16"), ("awq", "float16"), ("gptq", "bfloat16")])
def test_tokens_are_as_likely_as_the_plain_matrices_make_them(
    converted: Callable[[Quantization, Dtype], InstalledModel],
    plain_transformers: Reference,
    tmp_path: Path,
    quantize: Quantization,
    dtype: Dtype,
) -> None:
    model, whole = converted(quantize, dtype), converted("none", dtype)
    spec = model.manifest.slide_stage
    slides = [npy(slide_tokens(count, spec.embed_dim, seed=count)) for count in (1, 7, spec.slide_tokens)]

    with running_vllm(model.llm_folder, model.manifest.llm.served_name, tmp_path, "--dtype", dtype) as vllm:
        answers = answers_of(vllm, slides)

    assert KERNELS[quantize] in vllm.log.read_text()
    difference, from_whole = (farthest(it.llm_folder, answers, plain_transformers) for it in (model, whole))
    print(f"{quantize} in {dtype}: {difference:.4f} from its own matrices, {from_whole:.4f} from those of {dtype}")
    assert difference < LIMITS[quantize]
    assert from_whole > 3 * LIMITS[quantize], "a server of the whole model would be told from this one"


def test_two_ranks_answer_as_one_does(vllm_python: Path, tmp_path: Path) -> None:
    spec = install_packaged(tmp_path / "models", "demo").manifest.slide_stage
    slides = [npy(slide_tokens(spec.slide_tokens, spec.embed_dim, seed)) for seed in range(4)]
    answers = {}

    for size in ("1", "2"):
        settings = {"EYEPIECE_TENSOR_PARALLEL_SIZE": size}
        with running_eyepiece_llm("demo", tmp_path, **settings) as vllm:
            answers[size] = answers_of(vllm, slides)
        log = vllm.log.read_text()
        assert ("world_size=2" in log or "rank 1" in log) == (size == "2"), log[-2000:]

    assert [it["token_ids"] for it in answers["1"]] == [it["token_ids"] for it in answers["2"]]
    one, two = (np.concatenate([it["logprobs"] for it in answers[size]]) for size in answers)
    print(f"two ranks: {np.abs(one - two).max():.2g} from one")
    np.testing.assert_allclose(one, two, atol=1e-3)
