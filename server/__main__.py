"""The command line. Each command's work is in `server.commands.<name>`, imported when it is run.

Order of the commands as in a first day: demo, doctor, up … then the parts, then the client, then housekeeping.
"""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from server.commands.outcome import EXIT_CODES, CommandError, ExitCode

if TYPE_CHECKING:
    from server.settings import Settings

app = typer.Typer(
    name="eyepiece",
    help="Ask questions about whole-slide images.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
keys_app = typer.Typer(help="API keys of tenants.", no_args_is_help=True)
models_app = typer.Typer(help="Models on this machine.", no_args_is_help=True)
app.add_typer(keys_app, name="keys")
app.add_typer(models_app, name="models")

CHECKOUT = Path(__file__).resolve().parent.parent

AsJson = Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")]
DataDir = Annotated[
    Path | None, typer.Option(help="Folder of all local state.", show_default="EYEPIECE_DATA_DIR or ./data")
]
Host = Annotated[str | None, typer.Option(help="Address to listen on.", show_default="EYEPIECE_HOST or 127.0.0.1")]
Port = Annotated[
    int | None,
    typer.Option(min=1, max=65535, help="Port to listen on.", show_default="EYEPIECE_PORT or 8000"),
]
Model = Annotated[str | None, typer.Option(help="Name of the model to serve.", show_default="EYEPIECE_MODEL or demo")]
Url = Annotated[str, typer.Option(envvar="EYEPIECE_URL", help="The server.")]
Key = Annotated[
    str,
    typer.Option(
        envvar="EYEPIECE_API_KEY",
        help="API key; better in the variable, where other users cannot read it.",
        show_default=False,
    ),
]
ModelName = Annotated[str, typer.Argument(help="As `eyepiece models list` shows it.")]
EncoderDevice = Annotated[str | None, typer.Option(help="cpu, cuda …", show_default="EYEPIECE_DEVICE or auto")]
ManifestFile = Annotated[Path | None, typer.Option(help="A manifest of your own instead of the packaged one.")]
Downloads = Annotated[
    Path | None,
    typer.Option(help="Folder of the published files.", show_default="DATA_DIR/downloads/NAME"),
]
DEFAULT_URL = "http://127.0.0.1:8000"


@app.command()
def demo(
    once: Annotated[bool, typer.Option(help="End after the answer.")] = False,
    seed: Annotated[int | None, typer.Option(help="Draw this slide instead of a new one.")] = None,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 8000,
    data_dir: Annotated[Path, typer.Option(help="Folder of all local state.")] = CHECKOUT / "data",
) -> None:
    """Start everything, upload a synthetic slide, ask about it."""
    from server.commands.demo import DemoOptions, demo

    demo(DemoOptions(data_dir, port, seed, once))


@app.command()
def doctor(
    host: Host = None, port: Port = None, data_dir: DataDir = None, model: Model = None, as_json: AsJson = False
) -> None:
    """Check the machine and the installation, and say what to do."""
    from server.commands.doctor import doctor

    raise typer.Exit(doctor(_settings(host=host, port=port, data_dir=data_dir, model=model), as_json))


@app.command()
def up(
    host: Host = None,
    port: Port = None,
    data_dir: DataDir = None,
    model: Model = None,
    workers: Annotated[int, typer.Option(min=1, help="Encoder workers; one for each GPU.")] = 1,
    notify_fd: Annotated[
        int | None, typer.Option(help="Write `ready` to this file descriptor when it is.", hidden=True)
    ] = None,
) -> None:
    """Run everything on this machine: Redis, vLLM, encoder workers, API."""
    from server.commands.up import UpOptions, up

    up(_settings(host=host, port=port, data_dir=data_dir, model=model), UpOptions(workers, notify_fd))


@app.command()
def api(host: Host = None, port: Port = None, data_dir: DataDir = None, model: Model = None) -> None:
    """Run the HTTP API."""
    from server.app import serve
    from server.commands.exposure import refuse_open_address, refuse_taken_port

    settings = _settings(host=host, port=port, data_dir=data_dir, model=model)
    refuse_open_address(settings)
    refuse_taken_port(settings)
    serve(settings)


@app.command()
def worker(data_dir: DataDir = None, model: Model = None) -> None:
    """Run one encoder worker."""
    from server.worker import run

    run(_settings(data_dir=data_dir, model=model))


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def llm(
    context: typer.Context,
    host: Annotated[str, typer.Option(help="Keep it on loopback or a private network.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 8101,
    data_dir: DataDir = None,
    model: Model = None,
) -> None:
    """Run vLLM with our plugin; further arguments go to vLLM."""
    from server.commands.llm import Listen, become_vllm

    become_vllm(_settings(data_dir=data_dir, model=model), Listen(host, port), context.args)


@app.command()
def upload(
    file: Annotated[Path, typer.Argument(help="The slide file.")],
    mpp: Annotated[float | None, typer.Option(help="µm/px, for a slide that does not say it.")] = None,
    urgent: Annotated[bool, typer.Option(help="Before all routine slides.")] = False,
    url: Url = DEFAULT_URL,
    key: Key = "",
    as_json: AsJson = False,
) -> None:
    """Upload a slide and wait until questions can be asked."""
    from server.commands.api_client import ApiClient
    from server.commands.upload import UploadWish, upload

    with ApiClient(url, key) as client:
        upload(client, UploadWish(file, mpp, urgent), as_json)


@app.command()
def ask(
    slide_id: Annotated[str, typer.Argument(help="As `eyepiece upload` prints it.")],
    question: Annotated[str, typer.Argument()],
    conversation: Annotated[str | None, typer.Option(help="Go on with this conversation.")] = None,
    url: Url = DEFAULT_URL,
    key: Key = "",
    as_json: AsJson = False,
) -> None:
    """Ask about a slide; the answer streams."""
    from server.commands.api_client import ApiClient
    from server.commands.ask import Question, ask

    with ApiClient(url, key) as client:
        ask(client, Question(slide_id, question, conversation), as_json)


@app.command()
def make_slide(
    path: Annotated[Path, typer.Argument(help="A new file, e.g. sample.svs.")],
    seed: Annotated[int | None, typer.Option(help="The same seed draws the same slide.")] = None,
) -> None:
    """Draw a synthetic slide."""
    from server.commands.make_slide import make_slide

    print(f"{path}: a synthetic slide, seed {make_slide(path, seed)}")


@keys_app.command("create")
def keys_create(
    tenant: Annotated[str, typer.Option(help="Lower-case letters, digits, hyphens.")],
    expires_days: Annotated[int | None, typer.Option(min=1, help="The key ends after so many days.")] = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Make a key and print it, once."""
    from server.commands import keys

    keys.create(_settings(data_dir=data_dir), tenant, expires_days, as_json)


@keys_app.command("list")
def keys_list(data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Show the keys' beginnings, tenants and dates."""
    from server.commands import keys

    keys.show(_settings(data_dir=data_dir), as_json)


@keys_app.command("revoke")
def keys_revoke(
    prefix: Annotated[str, typer.Argument(help="The beginning, as `keys list` shows it.")], data_dir: DataDir = None
) -> None:
    """Take a key back."""
    from server.commands import keys

    keys.revoke(_settings(data_dir=data_dir), prefix)


@models_app.command("list")
def models_list(data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Show the models that are known or installed."""
    from server.commands import models

    models.show(_settings(data_dir=data_dir).installed_models_dir, as_json)


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
    name: ModelName, manifest: ManifestFile = None, downloads: Downloads = None, data_dir: DataDir = None
) -> None:
    """Install a model from its published files."""
    from server.commands import models

    chosen = models.chosen_manifest(name, manifest)
    models_dir = _settings(data_dir=data_dir).installed_models_dir
    models.convert(chosen, _downloads_dir(downloads, data_dir, name), models_dir)


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

    settings = _settings(data_dir=data_dir, device=device)
    models.verify(open_model(settings.installed_models_dir, name), settings.device, record_golden)


@models_app.command("add")
def models_add(
    folder: Annotated[Path, typer.Argument(help="An installed model's folder, e.g. from another machine.")],
    data_dir: DataDir = None,
) -> None:
    """Install a model that was converted elsewhere."""
    from server.commands import models

    models.add(folder, _settings(data_dir=data_dir).installed_models_dir)


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

    settings = _settings(data_dir=data_dir, device=device)
    models.compare_outputs(open_model(settings.installed_models_dir, name), features, published, settings.device)


@models_app.command("make-demo")
def models_make_demo(
    models_dir: Annotated[
        Path | None, typer.Option(help="Where to install it.", show_default="DATA_DIR/models")
    ] = None,
    data_dir: DataDir = None,
) -> None:
    """Make the demo model: tiny and untrained."""
    from server.commands import models

    models.make_demo(models_dir or _settings(data_dir=data_dir).installed_models_dir)


def _downloads_dir(given: Path | None, data_dir: Path | None, name: str) -> Path:
    return given or _settings(data_dir=data_dir).data_dir / "downloads" / name


def _settings(**given: Any) -> "Settings":
    """The settings of the environment, with what the command line says in their place."""
    from pydantic import ValidationError

    from server.settings import Settings

    try:
        return Settings(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        name = "EYEPIECE_" + "_".join(str(part) for part in first["loc"]).upper()
        raise CommandError(f"The setting {name} is wrong: {first['msg']}.", ExitCode.USAGE) from error


def main() -> None:
    """The console script: errors that have a sentence end as that sentence and their exit code."""
    code = _run()
    sys.stdout.flush()
    if "obstore" in sys.modules:
        # Its threads may still hold Python objects when the interpreter is torn down, which then aborts the
        # process after all was done (PyO3/pyo3-async-runtimes#40). So it is not torn down.
        os._exit(code)
    sys.exit(code)


def _run() -> int:
    from model_store.errors import EyepieceError

    try:
        app()
    except SystemExit as end:  # how typer ends
        return end.code if isinstance(end.code, int) else ExitCode.OK
    except CommandError as error:
        return _fail(str(error), error.exit_code)
    except EyepieceError as error:  # a model that is not installed, a tenant's name that cannot be one
        return _fail(error.detail, ExitCode.USAGE)
    return ExitCode.OK


def _fail(sentence: str, exit_code: ExitCode) -> ExitCode:
    sys.stderr.write(f"eyepiece: {sentence}\n")
    sys.stderr.flush()
    return exit_code


if __name__ == "__main__":
    main()
