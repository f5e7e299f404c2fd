"""The model that a slide is inspected for. Nothing is installed for it: a packaged model is used where it lies."""

from dataclasses import dataclass
from pathlib import Path

from model_store.choices import with_choices
from model_store.errors import ModelError
from model_store.installed import InstalledModel, open_model
from model_store.manifest import Manifest, packaged_manifest
from model_store.packaged_models import PACKAGED, packaged_models
from server.settings import Settings


@dataclass(frozen=True)
class InspectedModel:
    """How it wants slides cut, and its weights, None where they are not on this machine."""

    manifest: Manifest
    installed: InstalledModel | None


def inspected_model(settings: Settings) -> InspectedModel:
    """The model as the settings want it served; raises ModelError for a name that nobody knows."""
    found = _found(settings)
    model = found or InstalledModel(Path(), packaged_manifest(settings.default_model), {})
    model = with_choices(model, settings.tile_dtype, settings.tile_reduction)
    return InspectedModel(model.manifest, model if found else None)


def _found(settings: Settings) -> InstalledModel | None:
    try:
        return open_model(settings.installed_models_dir, settings.default_model)
    except ModelError:
        return open_model(PACKAGED, settings.default_model) if settings.default_model in packaged_models() else None
