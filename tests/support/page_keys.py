"""Keys for tests of the page, made as an operator makes them, on the machine of a running server."""

import subprocess
import sys

from running_server import RunningServer


def new_key(server: RunningServer, *options: str) -> str:
    """A key of the tenant `default`; with all scopes unless the options say others."""
    created = keys_command(server, "create", "--tenant", "default", *options)
    return next(word for word in created.split() if word.startswith("ey"))


def keys_command(server: RunningServer, *arguments: str) -> str:
    """What `eyepiece keys` prints."""
    command = [sys.executable, "-m", "server", "keys", *arguments, "--data-dir", str(server.data_dir)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout
