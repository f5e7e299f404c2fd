"""`eyepiece evaluate …`: each command's work is in `server.commands.evaluate`, imported when it is run."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from server.commands.options import DataDir, EncoderDevice, Key, ModelName, settings_from

evaluate_app = typer.Typer(
    help="Compare models on questions about slides, beside what each gets without looking.", no_args_is_help=True
)

_Run = Annotated[Path, typer.Argument(metavar="RUN", help="The folder of the run.")]
_AtOnce = Annotated[int, typer.Option(min=1, max=256, help="Questions at the same time.")]
_Prompts = Annotated[
    Path | None, typer.Option("--judge-prompts", help="TOML with other texts for the judge.", show_default="ours")
]
_EndpointKey = Annotated[
    str,
    typer.Option(
        envvar="EYEPIECE_ENDPOINT_KEY",
        help="The endpoint's key; better in the variable, where other users cannot read it.",
        show_default=False,
    ),
]
_Conditions = Annotated[
    list[str] | None,
    typer.Option(
        "--condition",
        help="as is, no slide, blank slide, wrong slide, “wrong slide, same project”, paraphrased; repeat it.",
        show_default="all that the model can be asked under",
    ),
]


@evaluate_app.command("ask")
def evaluate_ask(  # noqa: PLR0913 - one for each option
    questions: Annotated[
        Path, typer.Argument(help="WSI-Bench (folder or JSONL), SlideBench, WSI-VQA, MultiPathQA, or JSONL.")
    ],
    out: Annotated[Path, typer.Option(help="The folder of the run; begun, or gone on with.")],
    name: Annotated[str, typer.Option(help="What to call this model in the report.")],
    layout: Annotated[str | None, typer.Option(help="How the questions are stored.", show_default="found out")] = None,
    eyepiece: Annotated[str | None, typer.Option(metavar="URL", help="Ask this Eyepiece.", show_default=False)] = None,
    endpoint: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Ask this OpenAI-compatible endpoint, e.g. …/v1.", show_default=False),
    ] = None,
    predictions: Annotated[
        Path | None,
        typer.Option(help="Ask nobody: take a file of {question_id, answer}, JSONL or CSV.", show_default=False),
    ] = None,
    model: Annotated[str | None, typer.Option(help="The model there.", show_default="the Eyepiece's first")] = None,
    view: Annotated[
        Literal["none", "thumbnail", "mosaic"],
        typer.Option(help="What an endpoint is shown: nothing, 1,024 px, or that and large low-power patches."),
    ] = "thumbnail",
    slides: Annotated[
        Path | None,
        typer.Option(help="A folder of slide files named like the set's, or a CSV of slide,path.", show_default=False),
    ] = None,
    condition: _Conditions = None,
    paraphrases: Annotated[
        Path | None,
        typer.Option(help="JSONL of {key, question}: other wordings, by key of question.", show_default="frames"),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Only so many questions of each task.", show_default="all")
    ] = None,
    at_once: _AtOnce = 8,
    max_questions: Annotated[
        int | None, typer.Option(min=1, help="Ask no more in all.", show_default="no limit")
    ] = None,
    max_usd: Annotated[
        float | None, typer.Option(min=0, help="Spend no more in all, by the prices below.", show_default="no limit")
    ] = None,
    usd_per_million_prompt: Annotated[float, typer.Option(min=0, help="Price of prompts' tokens.")] = 0.0,
    usd_per_million_answer: Annotated[float, typer.Option(min=0, help="Price of answers' tokens.")] = 0.0,
    temperature: Annotated[
        float | None, typer.Option(min=0, max=2, help="Of answers.", show_default="0; an Eyepiece's own")
    ] = None,
    max_tokens: Annotated[
        int | None, typer.Option(min=1, help="Of an answer.", show_default="512; an Eyepiece's own")
    ] = None,
    timeout_s: Annotated[float, typer.Option(min=1, help="Seconds that an answer may take.")] = 120.0,
    seed: Annotated[int, typer.Option(help="Chooses wrong slides and wordings.")] = 0,
    note: Annotated[str, typer.Option(help="Shown beside the model's name in the report.")] = "",
    key: Key = "",
    endpoint_key: _EndpointKey = "",
) -> None:
    """Put every question to a model under every condition; goes on where it was interrupted."""
    from evaluation.asking.run import Budget
    from server.commands.evaluate import AskOptions, ask

    budget = Budget(max_questions, max_usd, usd_per_million_prompt, usd_per_million_answer)
    ask(
        AskOptions(
            questions, out, name, layout, eyepiece, endpoint, predictions, model, view, slides,
            tuple(condition) if condition else None, paraphrases, limit, at_once, budget, temperature, max_tokens,
            timeout_s, seed, note, key, endpoint_key,
        )
    )  # fmt: skip


@evaluate_app.command("judge")
def evaluate_judge(  # noqa: PLR0913 - one for each option
    run: _Run,
    endpoint: Annotated[str, typer.Option(metavar="URL", help="The judge's OpenAI-compatible endpoint, e.g. …/v1.")],
    model: Annotated[str, typer.Option(help="The judge. Numbers of two judges do not compare.")],
    judge_prompts: _Prompts = None,
    condition: _Conditions = None,
    repeats: Annotated[int, typer.Option(min=1, max=20, help="How often everything is judged.")] = 3,
    max_tokens: Annotated[int, typer.Option(min=1, help="Of a judgement.")] = 4096,
    timeout_s: Annotated[float, typer.Option(min=1, help="Seconds that a judgement may take.")] = 120.0,
    at_once: _AtOnce = 8,
    endpoint_key: _EndpointKey = "",
) -> None:
    """Have the open answers judged: WSI-Precision and WSI-Relevance; goes on where it was interrupted."""
    from server.commands.evaluate import JudgeOptions, judge

    judge(
        JudgeOptions(
            run, endpoint, model, judge_prompts, tuple(condition) if condition else None, repeats, max_tokens,
            timeout_s, at_once, endpoint_key,
        )
    )  # fmt: skip


@evaluate_app.command("score")
def evaluate_score(
    run: _Run,
    judge_prompts: _Prompts = None,
    training: Annotated[
        list[Path] | None,
        typer.Option(help="Training files: projects with fewer than 100 slides in them are pooled as rare."),
    ] = None,
    papers: Annotated[str, typer.Option(help="Whose text metrics.")] = "wsi_llava,mllm_hwsi",
    bertscore: Annotated[
        Path | None,
        typer.Option(help="A folder with a BERT, e.g. PubMedBERT: adds BERTScore.", show_default="none"),
    ] = None,
    bertscore_layer: Annotated[int, typer.Option(min=1, help="Of that BERT; MLLM-HWSI takes 9.")] = 9,
) -> None:
    """Make numbers, tables and report.html of what was asked and judged; asks nobody."""
    from server.commands.evaluate import ScoreCommand, score

    names = tuple(name.strip() for name in papers.split(",") if name.strip())
    score(ScoreCommand(run, judge_prompts, tuple(training or ()), names, bertscore, bertscore_layer))


@evaluate_app.command("retrieval")
def evaluate_retrieval(
    similarities: Annotated[
        Path, typer.Argument(help="A square, .npy or JSON: a row a report, a column a slide, partners on the diagonal.")
    ],
) -> None:
    """Print how well slides are found by reports, and reports by slides."""
    from server.commands.evaluate import retrieval

    retrieval(similarities)


ablations_app = typer.Typer(
    help="What is lost where a slide lacks something, and what the metrics are worth.", no_args_is_help=True
)
evaluate_app.add_typer(ablations_app, name="ablations")


@ablations_app.command("ask")
def ablations_ask(  # noqa: PLR0913 - one for each option
    questions: Annotated[Path, typer.Argument(help="As of `evaluate ask`.")],
    out: Annotated[Path, typer.Option(help="The folder of the run; begun, or gone on with.")],
    name: Annotated[str, typer.Option(help="What to call it in the report; another name than the model's own run.")],
    eyepiece: Annotated[str, typer.Option(metavar="URL", help="Ask this Eyepiece, whose first model is ablated.")],
    slides: Annotated[Path, typer.Option(help="A folder of slide files named like the set's, or a CSV of slide,path.")],
    budget: Annotated[
        list[int] | None,
        typer.Option(min=1, help="Tiles of a budget; repeat it.", show_default="100, 1000, 10000"),
    ] = None,
    draws: Annotated[int, typer.Option(min=0, max=20, help="Random draws beside the evenly spaced choice.")] = 3,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Only so many questions of each task.", show_default="all")
    ] = None,
    at_once: _AtOnce = 8,
    timeout_s: Annotated[float, typer.Option(min=1, help="Seconds that an answer may take.")] = 120.0,
    note: Annotated[str, typer.Option(help="Shown beside the name in the report.")] = "",
    key: Key = "",
) -> None:
    """Ask with tiles shuffled, features blank and under tile budgets. Slides are encoded anew while it runs: use a
    server that nobody else asks."""
    from evaluation.asking.ablations import BUDGETS
    from server.commands.evaluate import AskOptions
    from server.commands.evaluate_ablations import AblationOptions, ask_ablations

    asked = AskOptions(
        questions, out, name, eyepiece=eyepiece, slides=slides, limit=limit, at_once=at_once, timeout_s=timeout_s,
        note=note, key=key,
    )  # fmt: skip
    ask_ablations(AblationOptions(asked, tuple(budget or BUDGETS), draws))


@ablations_app.command("metrics")
def ablations_metrics(run: _Run) -> None:
    """Hold text metrics against reports whose share of right statements is known; asks nobody."""
    from evaluation.run_folder import RunFolder
    from server.commands.evaluate_ablations import compare_text_metrics

    compare_text_metrics(RunFolder(run))


@ablations_app.command("alignment")
def ablations_alignment(
    model: ModelName,
    questions: Annotated[Path, typer.Argument(help="A set with reports, as of `evaluate ask`.")],
    run: Annotated[Path, typer.Option("--out", help="The folder of the run that gets the table.")],
    slides: Annotated[Path, typer.Option(help="A folder of slide files named like the set's, or a CSV of slide,path.")],
    device: EncoderDevice = None,
    data_dir: DataDir = None,
) -> None:
    """Tell how far an installed model's slides lie together with their reports; no server is needed."""
    from evaluation.run_folder import RunFolder
    from model_store.installed import open_model
    from server.commands.evaluate_alignment import align_model
    from server.uploads.slide_inspection import reader_limits

    settings = settings_from(data_dir=data_dir, device=device)
    installed = open_model(settings.installed_models_dir, model)
    align_model(installed, questions, slides, RunFolder(run), settings.device, reader_limits(settings))


@evaluate_app.command("demo")
def evaluate_demo(
    out: Annotated[Path, typer.Option(help="The folder of the run; begun, or gone on with.")],
    slides: Annotated[int, typer.Option(min=6, help="How many to draw.")] = 12,
    data_dir: Annotated[
        Path | None, typer.Option(help="State of the server that is started.", show_default="a temporary folder")
    ] = None,
    ablations: Annotated[
        bool, typer.Option("--ablations", help="Ask about slides that lack something, too: half an hour more.")
    ] = False,
) -> None:
    """Compare the demo model with a model of text alone and one of thumbnails, on slides that are drawn for it."""
    from server.commands.evaluate_demo import DemoRun, evaluate_demo

    evaluate_demo(DemoRun(out, slides, data_dir, ablations=ablations))
