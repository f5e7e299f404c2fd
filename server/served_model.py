"""The model that is served: what is installed, with the operator's choices. API and worker name embeddings by it."""

from model_store.choices import with_choices
from model_store.installed import InstalledModel
from model_store.packaged_models import open_or_install
from server.settings import Settings


def open_served_model(settings: Settings) -> InstalledModel:
    """The installed model as the settings want it served; raises ModelError."""
    model = open_or_install(settings.installed_models_dir, settings.model)
    return with_choices(model, settings.tile_dtype, settings.tile_reduction)
