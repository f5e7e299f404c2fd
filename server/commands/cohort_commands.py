"""`eyepiece cohort …`: the work is in `server.commands.cohort`, imported when it is run."""

from pathlib import Path
from typing import Annotated

import typer

from server.commands.options import Key, Url, default_url

cohort_app = typer.Typer(help="Ask the same questions about many slides.", no_args_is_help=True)


@cohort_app.command("run")
def cohort_run(  # noqa: PLR0913 - one for each option
    slides: Annotated[
        Path, typer.Argument(metavar="SLIDES.csv", help="CSV: slide, and path or id; other columns are kept.")
    ],
    questions: Annotated[Path, typer.Argument(metavar="QUESTIONS.csv", help="CSV: key, question.")],
    out: Annotated[Path, typer.Option(help="The folder of answers.csv and its log; begun, or gone on with.")],
    url: Url = "",
    model: Annotated[str | None, typer.Option(help="Who is asked.", show_default="the server's first")] = None,
    at_once: Annotated[int, typer.Option(min=1, max=64, help="Slides, and questions, at the same time.")] = 8,
    timeout_s: Annotated[float, typer.Option(min=1, help="Seconds that an answer may take.")] = 120.0,
    key: Key = "",
) -> None:
    """Upload and encode the slides, ask every question about each, and write a table; goes on where it stopped."""
    from server.commands.cohort import CohortOptions, run_cohort

    run_cohort(CohortOptions(slides, questions, out, url or default_url(), key, model, at_once, timeout_s))
