"""Steps of the trainer on the device against the same steps on the CPU: losses, and the first step's gradients.

The demo model's last stage with its own batches, loss and optimiser: projector, language model and scaffold together.
What accelerate puts around a step, one process's autocast, is put around it here.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final, Literal

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from benchmarks.gpu_check.results import Finding, Number
from benchmarks.gpu_check.setting import Setting
from model_store.manifest import packaged_manifest
from model_store.packaged_models import PACKAGED
from synthetic.slide_truth import FIRST_TRAINING_SEED, slide_truth
from training.demo_recipe import DEMO
from training.language_model.conversation_task import SlideTask, TokenizedSlides
from training.language_model.slide_language_model import SlideLanguageModel
from training.loop.optimizer import adamw
from training.loop.settings import LoopSettings, learning_rate
from training.write_model import LlamaShape

_STEPS, _SMALL_STEPS = 8, 2
_SLIDES, _SMALL_TOKENS = 16, 200
# Largest difference, relative. float32: sums in another order at the first step; AdamW then divides by the gradient's
# size, which makes much of little. bfloat16 rounds by 2^-8, of which a mean over hundreds of tokens keeps little.
_FIRST_LOSS: Final = {"fp32": 1e-5, "bf16": 1e-2}
_LAST_LOSS: Final = {"fp32": 1e-2, "bf16": 3e-2}
_GRADIENT: Final = {"fp32": 1e-3, "bf16": 5e-2}

Precision = Literal["fp32", "bf16"]


@dataclass(frozen=True)
class _Course:
    """Of one training: each step's loss, and the norm of all gradients in each."""

    losses: list[float]
    gradient_norms: list[float]


def check(setting: Setting) -> Finding:
    """fp32 and bf16 on the device, both against fp32 on the CPU."""
    expected = _course(setting, "cpu", "fp32")
    numbers: list[Number] = []
    precisions: tuple[Precision, ...] = ("fp32", "bf16")
    for precision in precisions:
        found = _course(setting, setting.device, precision)
        differences = {
            "first loss": (_relative(found.losses[0], expected.losses[0]), _FIRST_LOSS),
            "first gradient's norm": (_relative(found.gradient_norms[0], expected.gradient_norms[0]), _GRADIENT),
            f"loss {len(found.losses)}": (_relative(found.losses[-1], expected.losses[-1]), _LAST_LOSS),
        }
        numbers += [
            Number(name=f"{precision}, {what}", value=value, at_most=most[precision], source="to fp32 on the CPU")
            for what, (value, most) in differences.items()
        ]
    losses = ", ".join(f"{loss:.4f}" for loss in expected.losses)
    return Finding(numbers=tuple(numbers), facts={"losses on the CPU": losses})


def _course(setting: Setting, device: str, precision: Precision) -> _Course:
    settings = replace(DEMO.instruct, warmup_steps=1, precision=precision)
    model, task = _model().to(device), _task(setting, settings)
    optimizer = adamw(model, settings)
    course = _Course([], [])
    for step in range(_SMALL_STEPS if setting.small else _STEPS):
        batch = {name: tensor.to(device) for name, tensor in task.batch(step, 0, 1).items()}
        with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=precision == "bf16"):
            values: Mapping[str, Tensor] = task.loss(model, batch)
        values["loss"].backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), settings.clip_norm)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(settings, step) * group["factor"]
        optimizer.step()
        optimizer.zero_grad()
        course.losses.append(float(values["loss"]))
        course.gradient_norms.append(float(norm))
    return course


def _model() -> SlideLanguageModel:
    torch.manual_seed(0)
    vocabulary = _tokenizer().get_vocab_size() - 1
    shape = LlamaShape(vocabulary, DEMO.hidden, DEMO.layers, DEMO.heads, DEMO.intermediate)
    width = packaged_manifest("demo").projector_width
    return SlideLanguageModel(shape, width, scaffold=True).train()


def _task(setting: Setting, settings: LoopSettings) -> SlideTask:
    mix = DEMO.mix(settings, DEMO.closed_on_slides)
    if setting.small:
        mix = replace(mix, step_tokens=_SMALL_TOKENS)
    spec = packaged_manifest("demo").longnet_pool()
    tokens = np.random.default_rng(0).standard_normal((_SLIDES, spec.slide_tokens, spec.embed_dim), dtype=np.float32)
    truths = tuple(slide_truth(FIRST_TRAINING_SEED + number) for number in range(_SLIDES))
    return SlideTask(mix, _tokenizer(), TokenizedSlides(torch.from_numpy(tokens).half(), truths), DEMO.token_noise)


def _tokenizer() -> Tokenizer:
    return Tokenizer.from_file(str(PACKAGED / "demo" / packaged_manifest("demo").llm.path / "tokenizer.json"))


def _relative(found: float, expected: float) -> float:
    return abs(found - expected) / abs(expected)
