"""Whether a command line of `eyepiece` would be understood; nothing is run."""

from typer.main import get_command

from server.__main__ import app


def parse_command_line(arguments: list[str]) -> None:
    """Fails as the command line would on a command or an option that does not exist."""
    command = get_command(app)
    while arguments and arguments[0] in getattr(command, "commands", {}):
        name, *arguments = arguments
        command = command.commands[name]  # type: ignore[attr-defined]
    assert not hasattr(command, "commands"), f"no such command: {arguments}"
    command.make_context("eyepiece", list(arguments))
