"""`eyepiece eval-…`: examinations on drawn slides. Each one's work is in `server.commands.<name>`, imported when it is
run."""

from pathlib import Path
from typing import Annotated

import typer

from server.commands.options import Key

_FirstSeed = Annotated[int, typer.Option(min=0, help="Slides are of this seed and the next ones.")]
_Running = Annotated[
    str | None,
    typer.Option("--url", help="A running server; its slides stay there.", show_default="one is started"),
]
_State = Annotated[
    Path | None,
    typer.Option("--data-dir", help="State of the server that is started.", show_default="a temporary folder"),
]
_Results = Annotated[Path | None, typer.Option("--json", help="Write the results there too.")]


def add_exams(app: typer.Typer) -> None:
    """The commands, in the order in which they are shown."""
    for command in (eval_demo, eval_regions, eval_honesty, eval_evidence, eval_choices):
        app.command()(command)


def eval_demo(
    slides: Annotated[int, typer.Option(min=2, help="How many to draw; at least 60 for a result that counts.")] = 60,
    short: Annotated[bool, typer.Option(help="14 slides, fewer questions, wider limits.")] = False,
    first_seed: _FirstSeed = 2_000_000_000,
    url: _Running = None,
    key: Key = "",
    data_dir: _State = None,
    json_path: _Results = None,
) -> None:
    """Measure how well the model answers about synthetic slides that it never saw."""
    from server.commands.eval_demo import EvalOptions, eval_demo

    eval_demo(EvalOptions(slides, first_seed, short, url, key, data_dir, json_path))


def eval_regions(
    slides: Annotated[int, typer.Option(min=1, help="How many to draw; at least 40 for a result that counts.")] = 40,
    first_seed: _FirstSeed = 2_000_100_000,
    url: _Running = None,
    key: Key = "",
    data_dir: _State = None,
    json_path: _Results = None,
) -> None:
    """Measure whether the model tells which quadrant of an unseen synthetic slide has necrosis."""
    from server.commands.eval_demo import EvalOptions
    from server.commands.eval_regions import eval_regions

    eval_regions(EvalOptions(slides, first_seed, False, url, key, data_dir, json_path))


def eval_honesty(
    slides: Annotated[int, typer.Option(min=1, help="How many to draw; at least 20 for a result that counts.")] = 20,
    first_seed: _FirstSeed = 2_000_200_000,
    url: _Running = None,
    key: Key = "",
    data_dir: _State = None,
    json_path: _Results = None,
    beside: Annotated[
        list[str] | None, typer.Option(help="NAME=FILE: show another run's --json beside it; may be repeated.")
    ] = None,
) -> None:
    """Measure whether answers turn with the wording, and what the model says where it knows nothing."""
    from server.commands.eval_demo import EvalOptions
    from server.commands.eval_honesty import Beside, eval_honesty

    options = EvalOptions(slides, first_seed, False, url, key, data_dir, json_path)
    eval_honesty(options, [Beside.parsed(one) for one in beside or []])


def eval_evidence(
    slides: Annotated[int, typer.Option(min=1, help="How many to draw of each kind.")] = 40,
    first_seed: _FirstSeed = 2_000_600_000,
    url: _Running = None,
    key: Key = "",
    data_dir: _State = None,
    json_path: _Results = None,
) -> None:
    """Measure whether evidence lies where the truth does, and whether the model knows its own tissue."""
    from server.commands.eval_demo import EvalOptions
    from server.commands.eval_evidence import eval_evidence

    eval_evidence(EvalOptions(slides, first_seed, False, url, key, data_dir, json_path))


def eval_choices(
    slides: Annotated[int, typer.Option(min=1, help="How many to draw; at least 20 for a result that counts.")] = 20,
    first_seed: _FirstSeed = 2_000_700_000,
    url: _Running = None,
    key: Key = "",
    data_dir: _State = None,
    json_path: _Results = None,
) -> None:
    """Measure whether closed questions are answered as well with `choices` as without."""
    from server.commands.eval_choices import eval_choices
    from server.commands.eval_demo import EvalOptions

    eval_choices(EvalOptions(slides, first_seed, False, url, key, data_dir, json_path))
