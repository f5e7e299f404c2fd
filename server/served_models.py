"""The models that are served, as installed, with the operator's choices. API and worker name embeddings by them."""

from model_store.choices import with_choices
from model_store.installed import InstalledModel
from model_store.packaged_models import open_or_install
from server.settings import Settings


def open_served_models(settings: Settings) -> tuple[InstalledModel, ...]:
    """The installed models as the settings want them served, the default first; raises ModelError."""
    models = [open_or_install(settings.installed_models_dir, served.name) for served in settings.served_models]
    return tuple(with_choices(model, settings.tile_dtype, settings.tile_reduction) for model in models)
