"""Options that several commands take, and how they become settings."""

import functools
import inspect
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from server.commands.outcome import CommandError, ExitCode
from server.commands.terminal import argument_text

if TYPE_CHECKING:
    from server.settings import Settings

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
Models = Annotated[
    list[str] | None,
    typer.Option(
        "--model",
        help="Name of a model to serve; repeat it to serve several, the first is the default.",
        show_default="EYEPIECE_MODELS, EYEPIECE_MODEL or demo",
    ),
]
Url = Annotated[
    str,
    typer.Option(
        envvar="EYEPIECE_URL",
        help="The server.",
        show_default="EYEPIECE_HOST and EYEPIECE_PORT, or http://127.0.0.1:8000",
    ),
]
StatusUrl = Annotated[
    str,
    typer.Option(
        envvar="EYEPIECE_URL", help="A server elsewhere; --data-dir wins over it.", show_default="the one of DATA_DIR"
    ),
]
Key = Annotated[
    str,
    typer.Option(
        envvar="EYEPIECE_API_KEY",
        help="API key; better in the variable, where other users cannot read it.",
        show_default=False,
    ),
]
SlideArgument = Annotated[
    str, typer.Argument(metavar="SLIDE", help="Its id or the beginning of it, 6 digits at least, or its file name.")
]
# What is said of a slide, by the name that the server has for it. Commands get them by `says_of_slides`.
_TEXTS = {
    "case": Annotated[str | None, typer.Option("--case", help="What groups slides.", show_default=False)],
    "accession": Annotated[str | None, typer.Option(help="The order's number.", show_default=False)],
    "patient_ref": Annotated[
        str | None, typer.Option(help="A reference to the patient, best a pseudonym.", show_default=False)
    ],
    "stain": Annotated[str | None, typer.Option(help="E.g. HE.", show_default=False)],
    "body_site": Annotated[str | None, typer.Option(help="Where the tissue is from.", show_default=False)],
}
Labels = Annotated[
    list[str] | None, typer.Option("--label", help="Any word of yours; repeat it for several.", show_default=False)
]
OneLabel = Annotated[str | None, typer.Option(help="One of the slides' labels.", show_default=False)]
# What a command's parameter `about` is without the decorators below, which give it.
NOTHING_SAID: Mapping[str, Any] = MappingProxyType({})
ModelName = Annotated[str, typer.Argument(help="As `eyepiece models list` shows it.")]
EncoderDevice = Annotated[str | None, typer.Option(help="cpu, cuda …", show_default="EYEPIECE_DEVICE or auto")]
ManifestFile = Annotated[Path | None, typer.Option(help="A manifest of your own instead of the packaged one.")]
Downloads = Annotated[
    Path | None,
    typer.Option(help="Folder of the published files.", show_default="DATA_DIR/downloads/NAME"),
]


def says_of_slides(command: Callable[..., None]) -> Callable[..., None]:
    """For a command that says something of slides: in place of its parameter `about` it gets an option for each field
    (`SlideMetadata`), and is given what they say, under the names that the server has; what is not said is left out.

    Raises:
        CommandError: when the command is run: a label has a comma, which separates labels on their way.
    """
    return _with_options(command, {**_TEXTS, "label": Labels}, _said)


def looks_for_slides(command: Callable[..., None]) -> Callable[..., None]:
    """The same for a command that looks for slides of which all of it is said: there `label` is one of a slide's."""
    return _with_options(command, {**_TEXTS, "label": OneLabel}, _texts)


def _with_options(
    command: Callable[..., None], options: Mapping[str, Any], read: Callable[[dict[str, Any]], dict[str, Any]]
) -> Callable[..., None]:
    """The command as Typer shall see it."""

    @functools.wraps(command)
    def with_options(**given: Any) -> None:
        said = {name: given.pop(name) for name in options}
        command(**given, about=read(said))

    parameters: list[inspect.Parameter] = []
    for parameter in inspect.signature(command, eval_str=True).parameters.values():
        if parameter.name == "about":
            parameters += [parameter.replace(name=name, annotation=it, default=None) for name, it in options.items()]
        else:
            parameters.append(parameter)
    with_options.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # what Typer goes by
    with_options.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return with_options


def _said(options: dict[str, Any]) -> dict[str, Any]:
    labels = options.pop("label")
    if any("," in label for label in labels or ()):
        raise CommandError("A label has no comma; say --label once for each.", ExitCode.USAGE)
    return _texts(options) | ({"labels": [argument_text(label) for label in labels]} if labels is not None else {})


def _texts(options: dict[str, Any]) -> dict[str, Any]:
    return {name: argument_text(text) for name, text in options.items() if text is not None}


def default_url() -> str:
    """The server of this machine, where its settings in the environment have it listen."""
    from server.machine.addresses import url_of

    return url_of(os.environ.get("EYEPIECE_HOST", "127.0.0.1").strip("[]"), os.environ.get("EYEPIECE_PORT") or "8000")


def settings_from(**given: Any) -> "Settings":
    """The settings: what the command line says, else the environment, else a file in EYEPIECE_SECRETS_DIR.

    Raises:
        CommandError: one of them cannot be read or is wrong.
    """
    from pydantic import ValidationError
    from pydantic_settings import SettingsError

    from server.settings import Settings

    try:
        said = {name: value for name, value in given.items() if value is not None}
        if "model" in said:  # the command line wins over EYEPIECE_MODELS
            names = [said["model"]] if isinstance(said["model"], str) else list(said["model"])
            said |= {"model": names[0], "models": ",".join(names) if len(names) > 1 else ""} if names else {}
            if not names:
                del said["model"]
        return Settings(**{"_secrets_dir": _secrets_dir(), **said})
    except SettingsError as error:
        sentence = "A file in EYEPIECE_SECRETS_DIR cannot be read: let this user read it, as UTF-8."
        raise CommandError(sentence, ExitCode.USAGE) from error
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        name = "EYEPIECE_" + "_".join(str(part) for part in first["loc"]).upper()
        raise CommandError(f"The setting {name} is wrong: {first['msg']}.", ExitCode.USAGE) from error


def _secrets_dir() -> str | None:
    """Refuses a folder that is not there: going on without a password that was meant to be set is worse."""
    folder = os.environ.get("EYEPIECE_SECRETS_DIR")
    if folder and not Path(folder).is_dir():
        raise CommandError("EYEPIECE_SECRETS_DIR names no folder: create it or unset the variable.", ExitCode.USAGE)
    return folder or None
