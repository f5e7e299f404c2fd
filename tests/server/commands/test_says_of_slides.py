"""Options of what is said of a slide: one for each field, in every command that says or looks for it."""

from collections.abc import Mapping
from typing import Any

import pytest
import typer
from typer.main import get_command
from typer.testing import CliRunner

from server.__main__ import app
from server.commands.options import NOTHING_SAID, looks_for_slides, says_of_slides
from server.commands.outcome import CommandError
from server.uploads.slide_metadata import METADATA_FIELDS

TAKEN = ["--case", "S26-0815", "--patient-ref", "p-5f2c", "--label", "teaching"]


def given_to(decorate: Any, *arguments: str) -> dict[str, Any]:
    """What a command is given for these words."""
    found: dict[str, Any] = {}
    small = typer.Typer()

    @small.command()
    @decorate
    def command(slide: str, about: Mapping[str, Any] = NOTHING_SAID, url: str = "") -> None:
        found.update(slide=slide, about=dict(about), url=url)

    ran = CliRunner().invoke(small, ["a.svs", *arguments, "--url", "http://here"])
    if ran.exception is not None and not isinstance(ran.exception, SystemExit):
        raise ran.exception
    assert (ran.exit_code, found["slide"], found["url"]) == (0, "a.svs", "http://here")
    about: dict[str, Any] = found["about"]
    return about


def test_what_is_said_comes_under_the_servers_names_and_the_rest_is_left_out() -> None:
    said = {"case": "S26-0815", "patient_ref": "p-5f2c", "labels": ["teaching", "HE"]}
    assert given_to(says_of_slides, *TAKEN, "--label", "HE") == said
    assert given_to(looks_for_slides, *TAKEN) == {"case": "S26-0815", "patient_ref": "p-5f2c", "label": "teaching"}
    assert given_to(says_of_slides, "--stain", "") == {"stain": ""}  # which takes it away
    assert given_to(says_of_slides) == given_to(looks_for_slides) == {}


def test_a_comma_would_make_two_labels_of_one() -> None:
    with pytest.raises(CommandError, match="no comma"):
        given_to(says_of_slides, "--label", "a,b")


@pytest.mark.parametrize("path", [["upload"], ["slides", "list"], ["slides", "describe"]], ids=" ".join)
def test_every_field_has_an_option_wherever_slides_are_described(path: list[str]) -> None:
    command: Any = get_command(app)
    for name in path:
        command = command.commands[name]

    options = {option for parameter in command.params for option in parameter.opts}
    assert {f"--{field.replace('_', '-')}" for field in METADATA_FIELDS if field != "labels"} | {"--label"} <= options
