"""Trained demo models written as they are installed and served, and in LLaVA's own layout."""

import tempfile
from pathlib import Path

from safetensors.torch import load_file

from encoders.familiarity import keep_statistics, read_statistics
from encoders.golden_vector import record_golden
from model_store.installed import InstalledModel, open_model
from model_store.manifest import packaged_manifest_text
from training.familiar_slides import record_familiarity
from training.honest_demo import answer_honestly
from training.language_model.demo_tokenizer import write_tokenizer
from training.language_model.published_layout import llava_weights, write_merged
from training.language_model.slide_language_model import SlideLanguageModel
from training.prefer_demo import Arm, prefer_demo
from training.train_demo import MODEL, DemoTraining, align_slides, arrays_of, demo_tokenizer, llama_shape, train_tiles
from training.write_model import write_model


def demo_start(folder: Path) -> InstalledModel:
    """The installed demo model in `folder`; raises ModelError where there is none."""
    return open_model(folder.parent, folder.name)


def export_demo(training: DemoTraining, start: InstalledModel | None, seed: int, folder: Path) -> InstalledModel:
    """The model that ships, with its golden vector; trains what is not trained yet. With `start` only the stage of
    honest answers is trained: encoders and familiar tissue are those of the model that it began with."""
    return _written(training, start, answer_honestly(training, start, seed).model, folder)


def export_preferred(
    training: DemoTraining, start: InstalledModel | None, arm: Arm, seed: int, folder: Path
) -> InstalledModel:
    """An arm of preference tuning as an installed model, as `export_demo`."""
    return _written(training, start, prefer_demo(training, start, arm, seed), folder)


def export_published(training: DemoTraining, folder: Path) -> Path:
    """The language model as LLaVA's own training leaves one, for `eyepiece models convert` and for LLaVA's code."""
    with tempfile.TemporaryDirectory() as tokenizer:
        write_tokenizer(demo_tokenizer(), Path(tokenizer))
        write_merged(answer_honestly(training, None, 0).model, Path(tokenizer), folder)
    return folder


def _written(
    training: DemoTraining, start: InstalledModel | None, model: SlideLanguageModel, folder: Path
) -> InstalledModel:
    manifest = training.manifest
    tile_file, slide_file = manifest.first_input.tile_encoder.weights, manifest.longnet_pool().weights
    if start is None:
        tiles = arrays_of(train_tiles(training).encoder.state_dict())
        slides = arrays_of(align_slides(training).slide_encoder.state_dict())
    else:
        tiles = arrays_of(load_file(start.folder / tile_file))
        slides = arrays_of(load_file(start.folder / slide_file))
    tokenizer = demo_tokenizer()
    written = write_model(
        folder,
        packaged_manifest_text(MODEL),
        encoders={tile_file: tiles, slide_file: slides},
        language_model=arrays_of(dict(llava_weights(model))),
        tokenizer=tokenizer,
        llama=llama_shape(training.recipe, tokenizer),
    )
    golden = record_golden(written, "cpu")
    if start is None:
        return record_familiarity(golden, training.recipe.familiar_slides)
    # The tile encoder is the same, and so is what it knows.
    statistics = read_statistics(start)
    return golden if statistics is None else keep_statistics(golden, statistics)
