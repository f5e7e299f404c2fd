"""The preference stage: the fourth, of answers that somebody or something preferred. Runs in the loop of all others.

A folder of it holds, beside what every stage leaves (training.loop.stage_folder), `preference.json`: what the pairs and
their weight in the loss were, so that a run is never resumed with others; and the reference's log-probabilities.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import torch
from tokenizers import Tokenizer
from torch import Tensor

from training.errors import SettingsChanged, TrainingError
from training.language_model.slide_language_model import SlideLanguageModel
from training.loop.run_stage import StageTask, run_stage
from training.loop.settings import LoopSettings
from training.loop.stage_folder import is_done, read_json, write_json
from training.preference.dpo_loss import PreferenceSettings
from training.preference.pairs import PreferencePair, pairs_digest
from training.preference.reference import reference_log_probabilities
from training.preference.task import PreferenceTask, ShownPairs
from training.preference.tokenized_pairs import tokenize_pair

_FILE: Final = "preference.json"


@dataclass(frozen=True)
class SlideRows:
    """float16 [S, N, D] of some embeddings, and the place of each pair's among them."""

    tokens: Tensor
    of_pair: Sequence[int]


@dataclass(frozen=True)
class PairData:
    """The pairs, what they are about, and how a conversation about a slide opens."""

    pairs: Sequence[PreferencePair]
    slides: SlideRows
    tokenizer: Tokenizer
    opening: str


def prefer(
    model: SlideLanguageModel,
    ordinary: StageTask,
    data: PairData,
    settings: LoopSettings,
    preference: PreferenceSettings,
    folder: Path,
    *,
    step_tokens: int,
) -> None:
    """Trains `model`, which is its own reference as it comes, in place; or goes on, or loads what a done run left.

    Of a model with LoRA only the pairs and the projector are trained, of another what is not frozen.

    Raises:
        SettingsChanged: the folder was begun with other pairs or other settings.
        CheckpointMismatch, TrainingDiverged, TrainingError: as `run_stage`.
    """
    require_same_preference(folder, data, preference, step_tokens)
    tokenized = [tokenize_pair(data.tokenizer, pair, data.opening) for pair in data.pairs]
    _require_room(max(pair.longest for pair in tokenized), model)
    rows = torch.tensor(data.slides.of_pair, dtype=torch.int64)
    if is_done(folder) or not preference.weight:
        reference = torch.zeros(len(tokenized), 2)  # nobody asks for it
    else:
        reference = reference_log_probabilities(model, tokenized, data.slides.tokens, rows, folder, settings.precision)
    shown = ShownPairs(tokenized, data.slides.tokens, rows, reference)
    task = PreferenceTask(ordinary, shown, preference, step_tokens=step_tokens, seed=settings.seed)
    run_stage(model, task, settings, folder)


def require_same_preference(folder: Path, data: PairData, preference: PreferenceSettings, step_tokens: int) -> None:
    """Claims the folder for these pairs and settings.

    Raises:
        SettingsChanged: it has been claimed for others.
    """
    wanted: Mapping[str, Any] = {**asdict(preference), "step_tokens": step_tokens, "pairs": pairs_digest(data.pairs)}
    path = folder / _FILE
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        write_json(path, wanted)
        return
    found = read_json(path)
    changed = sorted(name for name in wanted if found.get(name) != json.loads(json.dumps(wanted[name])))
    if changed:
        raise SettingsChanged(
            f"{folder} holds preference tuning with another {', '.join(changed)}: remove that folder to train anew, or "
            f"go back to what its {_FILE} says."
        )


def slide_rows(pairs: Sequence[PreferencePair], tokens_of: Callable[[str], Tensor]) -> SlideRows:
    """Rows of what the pairs are about, each once: `tokens_of` a region's name, or a slide's where no region is given.

    Raises:
        TrainingError: whatever `tokens_of` raises, and embeddings of different shapes.
    """
    names = list(dict.fromkeys(pair.region or pair.slide for pair in pairs))
    tokens = [tokens_of(name) for name in names]
    shapes = {tuple(one.shape) for one in tokens}
    if len(shapes) != 1:
        raise TrainingError(f"The slides' embeddings have different shapes, {sorted(shapes)}: they are of two models.")
    place = {name: index for index, name in enumerate(names)}
    return SlideRows(torch.stack(tokens).half(), [place[pair.region or pair.slide] for pair in pairs])


def _require_room(longest: int, model: SlideLanguageModel) -> None:
    most = model.llama.config.max_position_embeddings
    if longest > most:
        raise TrainingError(f"A pair has {longest} tokens, and the model reads at most {most}: shorten its messages.")
