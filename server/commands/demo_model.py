"""The demo model is made on this machine, in a process of its own: that needs torch, the supervisor does not."""

import subprocess
import sys
from pathlib import Path

from model_store.errors import ModelError
from model_store.installed import open_model
from model_store.manifest import packaged_manifest
from server.commands.outcome import CommandError, ExitCode
from server.settings import Settings

NAME = "demo"


def install_demo_model(settings: Settings) -> None:
    """Makes the demo model where it is wanted and absent or outdated; opens any other as it is.

    Raises:
        CommandError: it could not be made.
        ModelError: another model is wanted and not installed.
    """
    if settings.model != NAME:
        open_model(settings.installed_models_dir, settings.model)
    elif not is_current(settings.installed_models_dir):
        print("Making the demo model …", flush=True)
        make_in_child(settings.installed_models_dir)


def is_current(models_dir: Path) -> bool:
    """Whether the demo model is installed and was made from the manifest that ships now."""
    try:
        return open_model(models_dir, NAME).manifest == packaged_manifest(NAME)
    except ModelError:
        return False


def make_in_child(models_dir: Path) -> None:
    """`eyepiece models make-demo`.

    Raises:
        CommandError: it failed; its own message stands above.
    """
    command = [sys.executable, "-m", "server", "models", "make-demo", "--models-dir", str(models_dir)]
    if subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode != 0:
        raise CommandError("The demo model could not be made; see the message above.", ExitCode.FAILED)
