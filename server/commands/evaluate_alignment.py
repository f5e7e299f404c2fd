"""`eyepiece evaluate ablations alignment`: an installed model's slides beside their reports, in its language model's
embeddings.

slides → encoded as a worker does → projector → the mean row
reports → the model's tokens → the mean of their embeddings
"""

import hashlib
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional

from encoders.caller import Caller
from encoders.errors import ReaderDied, SlideError
from encoders.pipeline import encode_slide, load_encoders
from encoders.tiling.isolation.reader_limits import ReaderLimits
from encoders.types import SlideFile
from evaluation.ablations.alignment import align, alignment_table
from evaluation.benchmark.items import QuestionSet
from evaluation.benchmark.read_set import read_set
from evaluation.run_folder import RunFolder
from model_store.contracts.slide_rows import ROWS
from model_store.errors import ModelError
from model_store.files.checkpoint_files import read_shard, shards_of
from model_store.installed import InstalledModel
from server.commands.evaluate import evaluation_errors
from server.commands.evaluate_ablations import print_table
from server.commands.evaluate_slides import slide_paths
from server.commands.outcome import CommandError, ExitCode

REPORT_TASK: Final = "Report"
_EMBEDDINGS: Final = "embed_tokens.weight"
_PROJECTOR: Final = "mm_projector."


def align_model(
    model: InstalledModel, questions: Path, slides: Path, run: RunFolder, device: str, limits: ReaderLimits
) -> None:
    """The command: writes the table into the run and prints it.

    Raises:
        CommandError: the set has too few reports, or a slide cannot be encoded.
        ModelError: the model's embeddings or its projector cannot be read.
    """
    with evaluation_errors():
        reports = reports_of(read_set(questions, None))
        paths = slide_paths(slides, list(reports))
    weights = language_weights(model)
    with load_encoders(model, device) as encoders, tempfile.TemporaryDirectory(prefix="eyepiece-alignment-") as scratch:
        rows = [_rows(encoders, path, Path(scratch), limits) for path in paths.values()]
    tokenizer = Tokenizer.from_file(str(model.llm_folder / "tokenizer.json"))
    slide_sides = [projected(model, weights, one).mean(axis=0) for one in rows]
    report_sides = [_mean_embedding(weights, tokenizer, text) for text in reports.values()]
    found = align(np.stack(slide_sides), np.stack(report_sides))
    name = model.manifest.name
    notes = [
        "Mean of the projected rows beside the mean of the report's token embeddings. Nothing in such a model's "
        "training asks for that, so little of it does not show that the slide is not understood.",
    ]
    table = alignment_table(f"Slides beside their reports: {name}", [("language model's embeddings", found)], notes)
    table.write(run.ablations_folder / f"alignment-{name}.json")
    print_table(table)


def reports_of(questions: QuestionSet) -> dict[str, str]:
    """The report of each slide that has one, by slide; of equal reports the first slide's alone.

    Raises:
        CommandError: there are fewer than three.
    """
    by_report: dict[str, str] = {}
    for item in questions.items:
        if item.task == REPORT_TASK and not item.is_closed:
            by_report.setdefault(item.truth, item.slide)
    if len(by_report) < 3:
        raise CommandError("Alignment needs three slides with different reports in the set.", ExitCode.USAGE)
    return {slide: text for text, slide in by_report.items()}


def language_weights(model: InstalledModel) -> Mapping[str, Tensor]:
    """The embeddings as "embed", and the projector's tensors by layer ("0.weight" …), empty for a model without one.

    Raises:
        ModelError: the embeddings are not there, or not numbers that can be read (quantised ones).
    """
    found: dict[str, Tensor] = {}
    for shard in shards_of(model.llm_folder):
        for name, tensor in read_shard(shard).items():
            if name.endswith(_EMBEDDINGS):
                found["embed"] = tensor
            elif _PROJECTOR in name:
                found[name.split(_PROJECTOR)[1]] = tensor.float()
    if "embed" not in found or not found["embed"].is_floating_point():
        raise ModelError("The language model's embeddings cannot be read; alignment is of models with plain ones.")
    if model.manifest.projector.kind == "mlp" and not {"0.weight", "2.weight"} <= set(found):
        raise ModelError("The model's projector is not beside its language model; install the model again.")
    return found


def projected(
    model: InstalledModel, weights: Mapping[str, Tensor], rows: NDArray[np.generic]
) -> NDArray[np.floating[Any]]:
    """A slide's rows [n, width] in the language model's space, float32 [n, hidden]."""
    states = torch.from_numpy(rows.astype(np.float32))
    if model.manifest.projector.kind == "mlp":
        states = functional.pad(states, (0, weights["0.weight"].shape[1] - states.shape[1]))
        states = functional.gelu(functional.linear(states, weights["0.weight"], weights["0.bias"]))
        states = functional.linear(states, weights["2.weight"], weights["2.bias"])
    return np.asarray(states.numpy(), np.float32)


def _rows(encoders: Any, path: Path, scratch: Path, limits: ReaderLimits) -> NDArray[np.generic]:
    slide = SlideFile(hashlib.sha256(path.name.encode()).hexdigest(), path)
    features = scratch / "features.h5"
    try:
        made = encode_slide(slide, encoders, mpp_override=None, limits=limits, features_path=features, caller=Caller())
    except (SlideError, ReaderDied) as error:
        raise CommandError(f"{path.name}: {error.detail}", ExitCode.FAILED) from error
    return made.tensors[ROWS]


def _mean_embedding(weights: Mapping[str, Tensor], tokenizer: Tokenizer, text: str) -> NDArray[np.floating[Any]]:
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    return np.asarray(weights["embed"][torch.tensor(ids)].float().mean(dim=0).numpy())
