"""The command line. Each command's work is in `server.commands.<name>`, imported when it is run.

Order of the commands as in a first day: demo, doctor, up … then the parts, then the client, then housekeeping.
"""

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from server.commands.audit_commands import audit_app
from server.commands.cohort_commands import cohort_app
from server.commands.evaluate_commands import evaluate_app
from server.commands.exam_commands import add_exams
from server.commands.key_commands import keys_app
from server.commands.level_commands import levels_app
from server.commands.model_commands import models_app
from server.commands.options import (
    NOTHING_SAID,
    AsJson,
    DataDir,
    Host,
    Key,
    Model,
    Models,
    Port,
    SlideArgument,
    StatusUrl,
    Url,
    default_url,
    says_of_slides,
    settings_from,
)
from server.commands.outcome import EXIT_CODES, CommandError, ExitCode
from server.commands.slide_commands import slides_app
from server.commands.terminal import accept_any_text, argument_text
from server.commands.webhook_commands import webhooks_app

app = typer.Typer(
    name="eyepiece",
    help="Ask questions about whole-slide images.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
tenants_app = typer.Typer(help="All that is of a tenant.", no_args_is_help=True)
feedback_app = typer.Typer(help="What people thought of answers.", no_args_is_help=True)
app.add_typer(slides_app, name="slides")
app.add_typer(keys_app, name="keys")
app.add_typer(audit_app, name="audit")
app.add_typer(tenants_app, name="tenants")
app.add_typer(feedback_app, name="feedback")
app.add_typer(webhooks_app, name="webhooks")
app.add_typer(models_app, name="models")
app.add_typer(levels_app, name="levels")
app.add_typer(evaluate_app, name="evaluate")
app.add_typer(cohort_app, name="cohort")

CHECKOUT = Path(__file__).resolve().parent.parent
# What the extra `worker` installs, by the names that are imported.
_OF_WORKERS = frozenset({"torch", "torchvision", "timm", "scipy", "skimage", "huggingface_hub", "jinja2"})
# Slides of seeds from 2**32 on are for training alone.
Seed = Annotated[
    int | None,
    typer.Option(min=0, max=2**32 - 1, help="The same seed draws the same slide.", show_default="another each time"),
]
SidePx = Annotated[
    int | None, typer.Option(min=512, max=100_000, help="Pixels.", show_default="2.3 × 1.9 mm, whatever the µm/px")
]


@app.command()
def demo(
    once: Annotated[bool, typer.Option(help="End after the answers.")] = False,
    seed: Seed = None,
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

    raise typer.Exit(doctor(settings_from(host=host, port=port, data_dir=data_dir, model=model), as_json))


@app.command()
def status(data_dir: DataDir = None, url: StatusUrl = "", key: Key = "", as_json: AsJson = False) -> None:
    """Show what runs: processes, ports, queue, models, disk; exit code 0 when all is well, 3 when nothing runs."""
    from server.commands.status import status_here, status_of

    if url and data_dir is None:
        raise typer.Exit(status_of(url, key, as_json))
    raise typer.Exit(status_here(settings_from(data_dir=data_dir), as_json))


@app.command()
def up(
    host: Host = None,
    port: Port = None,
    data_dir: DataDir = None,
    model: Models = None,
    workers: Annotated[int, typer.Option(min=1, help="Encoder workers; one for each GPU.")] = 1,
    notify_fd: Annotated[
        int | None, typer.Option(help="Write `ready` to this file descriptor once everything is.", hidden=True)
    ] = None,
) -> None:
    """Run everything on this machine: Redis, vLLM, encoder workers, API."""
    from server.commands.up import UpOptions, up

    up(settings_from(host=host, port=port, data_dir=data_dir, model=model), UpOptions(workers, notify_fd))


@app.command()
def api(host: Host = None, port: Port = None, data_dir: DataDir = None, model: Model = None) -> None:
    """Run the HTTP API."""
    from server.app import serve
    from server.commands.exposure import refuse_open_address, refuse_taken_port

    settings = settings_from(host=host, port=port, data_dir=data_dir, model=model)
    refuse_open_address(settings)
    refuse_taken_port(settings)
    serve(settings)


@app.command()
def worker(data_dir: DataDir = None, model: Model = None) -> None:
    """Run one encoder worker."""
    from server.commands.exposure import refuse_taken_worker_port
    from server.worker import run

    settings = settings_from(data_dir=data_dir, model=model)
    refuse_taken_worker_port(settings)
    run(settings)


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

    become_vllm(settings_from(data_dir=data_dir, model=model), Listen(host, port), context.args)


@app.command()
def inspect(  # noqa: PLR0913 - one for each option
    file: Annotated[Path, typer.Argument(help="The slide file.")],
    model: Model = None,
    mpp: Annotated[float | None, typer.Option(help="µm/px, for a slide that does not say it.")] = None,
    overlay: Annotated[Path | None, typer.Option(help="A PNG to draw: tissue, tiles, pen.", show_default=False)] = None,
    levels: Annotated[
        Path | None,
        typer.Option(
            help="What a model of levels was given, from GET /v1/slides/{id}/features: drawn in place of the plan.",
            show_default=False,
        ),
    ] = None,
    region: Annotated[int | None, typer.Option(help="Only this region of --levels, large.", show_default=False)] = None,
    encoder: Annotated[bool, typer.Option(help="Measure how fast tiles are encoded here.")] = True,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Look at a slide without a server: what would be read, how much tissue, how long it takes."""
    from server.commands.inspect import InspectOptions, inspect

    options = InspectOptions(file, mpp, overlay, encoder, levels, region)
    inspect(settings_from(data_dir=data_dir, model=model), options, as_json)


@app.command()
@says_of_slides
def upload(  # noqa: PLR0913 - typer reads the options off the signature
    slides: Annotated[
        list[Path] | None,
        typer.Argument(metavar="SLIDE...", help="Slide files, or folders of slides of several files (DICOM, MIRAX)."),
    ] = None,
    mpp: Annotated[float | None, typer.Option(help="µm/px, for a slide that does not say it.")] = None,
    urgent: Annotated[bool, typer.Option(help="Before all routine slides.")] = False,
    watch: Annotated[
        Path | None,
        typer.Option(help="Send what comes into this folder, until Ctrl-C; files that still grow are left alone."),
    ] = None,
    settle_s: Annotated[
        float, typer.Option("--settle", help="With --watch: seconds without a change after which a slide is sent.")
    ] = 30.0,
    files_at_once: Annotated[int, typer.Option(min=1, max=16, help="Files of a slide that are sent at once.")] = 3,
    about: Mapping[str, Any] = NOTHING_SAID,
    url: Url = "",
    key: Key = "",
    as_json: AsJson = False,
) -> None:
    """Upload slides and wait until questions can be asked. After Ctrl-C, the same command goes on where it was."""
    from server.commands.api_client import ApiClient
    from server.commands.upload import UploadOptions, upload, upload_watched

    def options(path: Path) -> UploadOptions:
        return UploadOptions(path, mpp, urgent, files_at_once, about)

    with ApiClient(url or default_url(), key) as client:
        if watch is not None:
            upload_watched(client, watch, settle_s, options, as_json)
        else:
            upload(client, [options(path) for path in slides or ()], as_json)


@app.command()
def ask(  # noqa: PLR0913 - typer reads the options off the signature
    slide: SlideArgument,
    question: Annotated[str, typer.Argument(help="Left out with --case.", show_default=False)] = "",
    case: Annotated[
        str | None, typer.Option(help="Ask each slide of this case, in place of SLIDE.", show_default=False)
    ] = None,
    conversation: Annotated[str | None, typer.Option(help="Go on with this conversation.")] = None,
    model: Annotated[
        str | None, typer.Option(help="Another model than the server's first.", show_default=False)
    ] = None,
    region: Annotated[
        str | None,
        typer.Option(
            help="x,y,width,height in level-0 pixels, a region's id, or `slide` for all of it.",
            show_default="what the conversation was about",
        ),
    ] = None,
    choice: Annotated[
        list[str] | None, typer.Option(help="The answer is one of these; say it twice or more.", show_default=False)
    ] = None,
    url: Url = "",
    key: Key = "",
    as_json: AsJson = False,
) -> None:
    """Ask about a slide, or a region of it, or each slide of a case; the answer streams."""
    from server.commands.api_client import ApiClient
    from server.commands.ask import Question, ask, ask_case
    from server.commands.find_slide import find_slide_id

    choices = tuple(argument_text(one) for one in choice or ())
    with ApiClient(url or default_url(), key) as client:
        if case is not None:
            if question or conversation or region:
                raise CommandError("With --case there is the question alone: no SLIDE and no region.", ExitCode.USAGE)
            ask_case(
                client, argument_text(case), Question("", argument_text(slide), None, model, None, choices), as_json
            )
            return
        if not question:
            raise CommandError('Say SLIDE and the question: eyepiece ask SLIDE "…".', ExitCode.USAGE)
        slide_id = find_slide_id(client, argument_text(slide))
        asked = Question(slide_id, argument_text(question), conversation, model, region, choices)
        ask(client, asked, as_json)


@app.command()
def report(  # noqa: PLR0913 - one for each option
    slide: SlideArgument,
    template: Annotated[
        Path | None, typer.Option(help="JSON with title and sections.", show_default="the server's own")
    ] = None,
    form: Annotated[str, typer.Option("--format", help="text, json, pdf, fhir, or sr (DICOM).")] = "text",
    out: Annotated[Path | None, typer.Option(help="A new file.", show_default="standard output")] = None,
    number: Annotated[
        int | None, typer.Option(min=1, help="Take this report, which is kept, and write none.", show_default=False)
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Another model than the server's first.", show_default=False)
    ] = None,
    url: Url = "",
    key: Key = "",
) -> None:
    """Have a draft report written about a slide: as text, JSON, PDF, FHIR or DICOM SR."""
    from server.commands.api_client import ApiClient
    from server.commands.find_slide import find_slide_id
    from server.commands.report import ReportOptions, report

    with ApiClient(url or default_url(), key) as client:
        slide_id = find_slide_id(client, argument_text(slide))
        report(client, ReportOptions(slide_id, form, out, template, model, number))


@app.command()
def chat(
    slide: SlideArgument,
    conversation: Annotated[
        str | None, typer.Option(help="Go on with this conversation.", show_default="a new one")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Another model than the server's first.", show_default=False)
    ] = None,
    url: Url = "",
    key: Key = "",
    as_json: Annotated[bool, typer.Option("--json", help="Each answer as a JSON object, a line each.")] = False,
) -> None:
    """Talk about a slide, line by line; `/help` there shows more. From a script, questions come on standard input."""
    from server.commands.api_client import ApiClient
    from server.commands.chat import ChatOptions, chat, lines_of_terminal

    is_spoken = sys.stdin.isatty() and not as_json
    options = ChatOptions(argument_text(slide), model, conversation, as_json, is_spoken)
    with ApiClient(url or default_url(), key) as client:
        chat(client, options, lines_of_terminal() if is_spoken else iter(sys.stdin))


@app.command()
def make_slide(
    path: Annotated[Path, typer.Argument(help="A new file, e.g. sample.svs; its truth goes to sample.json.")],
    seed: Seed = None,
    mpp: Annotated[float, typer.Option(min=0.1, max=1.0, help="µm/px: 0.25 is 40×, 0.5 is 20×.")] = 0.5,
    width: SidePx = None,
    height: SidePx = None,
    stain_seed: Annotated[
        int | None, typer.Option(min=0, help="Laboratory and scanner.", show_default="goes with the slide's seed")
    ] = None,
) -> None:
    """Draw a synthetic slide and write its truth beside it."""
    from server.commands.make_slide import SlideOptions, make_slide

    options = SlideOptions(path, seed, mpp, width, height, stain_seed)
    print(f"{path}: a synthetic slide, seed {make_slide(options).seed}; what is true of it: {options.truth_path}")


add_exams(app)


@tenants_app.command("erase")
def tenants_erase(
    tenant: Annotated[str, typer.Argument(help="Its name.")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    data_dir: DataDir = None,
    model: Models = None,
    as_json: AsJson = False,
) -> None:
    """Erase a tenant: keys, slides and all that was made of them, conversations; written into the audit log."""
    from server.app import erase
    from server.commands.tenants import erase as erase_with

    erase_with(settings_from(data_dir=data_dir, model=model), tenant, erase, yes=yes, as_json=as_json)


@tenants_app.command("retention")
def tenants_retention(
    days: Annotated[
        int | None,
        typer.Option(min=1, max=36_500, help="As if all tenants' slides were kept so long.", show_default="as is set"),
    ] = None,
    data_dir: DataDir = None,
    model: Models = None,
    as_json: AsJson = False,
) -> None:
    """Say which slides would go within the hour by EYEPIECE_RETAIN_DAYS, or by other days; nothing is deleted."""
    from server.app import due_slides
    from server.commands.retention import show_due

    tried = {} if days is None else {"retain_days": days, "tenant_retain_days": {}}
    show_due(settings_from(data_dir=data_dir, model=model, **tried), due_slides, as_json)


@feedback_app.command("export")
def feedback_export(
    since: Annotated[
        str | None,
        typer.Option(help="From this date or moment on, e.g. 2026-11-01.", show_default="all of it"),
    ] = None,
    url: Url = "",
    key: Key = "",
) -> None:
    """Print verdicts with question and answer, a JSON object a line; it holds what people typed."""
    from server.commands.api_client import ApiClient
    from server.commands.feedback import export

    with ApiClient(url or default_url(), key) as client:
        export(client, since)


def main() -> None:
    """The console script: errors that have a sentence end as that sentence and their exit code."""
    accept_any_text()
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
    except ModuleNotFoundError as error:  # the server's installation has no torch, and needs none to serve
        if error.name not in _OF_WORKERS:
            raise
        sentence = f"This command needs {error.name}, which is not installed: pip install 'eyepiece[worker]'."
        return _fail(sentence, ExitCode.USAGE)
    return ExitCode.OK


def _fail(sentence: str, exit_code: ExitCode) -> ExitCode:
    sys.stderr.write(f"eyepiece: {sentence}\n")
    sys.stderr.flush()
    return exit_code


if __name__ == "__main__":
    main()
