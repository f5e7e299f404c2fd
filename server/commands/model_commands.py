"""`eyepiece models …`: each command's work is in `server.commands.models`, imported when it is run."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from server.commands.options import AsJson, DataDir, Downloads, EncoderDevice, ManifestFile, ModelName, settings_from

# As in model_store.manifest, whose import would slow every command down; a test compares them.
Quantize = Literal["fp8", "awq", "gptq"]

models_app = typer.Typer(help="Models on this machine.", no_args_is_help=True)


@models_app.command("list")
def models_list(data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Show the models that are known or installed."""
    from server.commands import models

    models.show(settings_from(data_dir=data_dir).installed_models_dir, as_json)


@models_app.command("install")
def models_install(name: ModelName, data_dir: DataDir = None) -> None:
    """Install a model that ships with Eyepiece; `up`, `api`, `worker` and `llm` do it by themselves."""
    from server.commands import models

    models.install(name, settings_from(data_dir=data_dir).installed_models_dir)


@models_app.command("fetch")
def models_fetch(
    name: ModelName,
    origin: Annotated[
        str | None, typer.Option("--from", help="A folder or bucket with the files, where there is no internet.")
    ] = None,
    manifest: ManifestFile = None,
    downloads: Downloads = None,
    data_dir: DataDir = None,
) -> None:
    """Get a model's published files: from the hub (HF_TOKEN), or --from a folder or bucket."""
    from server.commands import models

    chosen = models.chosen_manifest(name, manifest)
    models.fetch(chosen, _downloads_dir(downloads, data_dir, name), origin)


@models_app.command("convert")
def models_convert(
    name: ModelName,
    manifest: ManifestFile = None,
    downloads: Downloads = None,
    quantize: Annotated[
        Quantize | None,
        typer.Option(
            help="Store the language model in fewer bits and install it as NAME-fp8 and so on: fp8 is computed here; "
            "awq and gptq are taken from one that is quantised already (in llm_quantized/, or the checkpoint itself).",
            show_default="16 bits",
        ),
    ] = None,
    data_dir: DataDir = None,
) -> None:
    """Install a model from its published files."""
    from server.commands import models

    chosen = models.chosen_manifest(name, manifest)
    models_dir = settings_from(data_dir=data_dir).installed_models_dir
    models.convert(chosen, _downloads_dir(downloads, data_dir, name), models_dir, quantize or "none")


@models_app.command("verify")
def models_verify(
    name: ModelName,
    record_golden: Annotated[
        bool, typer.Option("--record-golden", help="Keep what this machine computes, to compare others with.")
    ] = False,
    device: EncoderDevice = None,
    data_dir: DataDir = None,
) -> None:
    """Check an installed model: digests, shapes, golden vector."""
    from model_store.installed import open_model
    from server.commands import models

    settings = settings_from(data_dir=data_dir, device=device)
    models.verify(open_model(settings.installed_models_dir, name), settings.device, record_golden)


@models_app.command("familiarity")
def models_familiarity(
    name: ModelName,
    folder: Annotated[Path, typer.Argument(help="A folder with slides of the kind that the model was made for.")],
    device: EncoderDevice = None,
    data_dir: DataDir = None,
) -> None:
    """Keep what such slides are like with the model, so that others are warned of."""
    from model_store.installed import open_model
    from server.commands.model_familiarity import record_statistics
    from server.uploads.slide_inspection import reader_limits

    settings = settings_from(data_dir=data_dir, device=device)
    model = open_model(settings.installed_models_dir, name)
    record_statistics(model, folder, settings.device, reader_limits(settings))


@models_app.command("add")
def models_add(
    folder: Annotated[Path, typer.Argument(help="An installed model's folder, e.g. from another machine.")],
    data_dir: DataDir = None,
) -> None:
    """Install a model that was converted elsewhere."""
    from server.commands import models

    models.add(folder, settings_from(data_dir=data_dir).installed_models_dir)


@models_app.command("compose")
def models_compose(
    folder: Annotated[Path, typer.Argument(help="A folder with manifest.toml, weights and a language model.")],
    data_dir: DataDir = None,
) -> None:
    """Install a model of your own (docs/add-a-model.md)."""
    from server.commands import models

    models.compose(folder, settings_from(data_dir=data_dir).installed_models_dir)


@models_app.command("compare-outputs")
def models_compare_outputs(
    name: ModelName,
    features: Annotated[Path, typer.Argument(help="The features file (.h5) of a slide, as the worker wrote it.")],
    published: Annotated[Path, typer.Argument(help="The published features (.pt) of the same slide.")],
    device: EncoderDevice = None,
    data_dir: DataDir = None,
) -> None:
    """Find out which output of the slide encoder made a published feature file."""
    from model_store.installed import open_model
    from server.commands import models

    settings = settings_from(data_dir=data_dir, device=device)
    models.compare_outputs(open_model(settings.installed_models_dir, name), features, published, settings.device)


def _downloads_dir(given: Path | None, data_dir: Path | None, name: str) -> Path:
    return given or settings_from(data_dir=data_dir).data_dir / "downloads" / name
