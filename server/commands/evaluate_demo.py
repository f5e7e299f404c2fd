"""`eyepiece evaluate demo`: the demo model beside a model of text alone and one of thumbnails, on slides drawn for it.

questions   WSI-Bench's layout A about drawn slides, truths exact         synthetic/write_wsi_bench.py
slides      drawn, and some more that the thumbnail's stand-in has seen   here
ask         the demo model through the API, both rivals by HTTP           server/commands/evaluate.py
ablations   where asked for: the demo model with slides that lack something  server/commands/evaluate_ablations.py
judge       a stand-in by rules, served like any other judge              evaluation/stand_ins/
score       the table, and report.html
"""

import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from evaluation.asking.conditions import Shown
from evaluation.run_folder import RunFolder
from evaluation.stand_ins.rule_judge import rule_judge
from evaluation.stand_ins.serve import serve
from evaluation.stand_ins.thumbnail import SeenSlide, ThumbnailStandIn, look_of
from server.commands.demo import running_server
from server.commands.evaluate import AskOptions, JudgeOptions, ScoreCommand, ask, judge, score
from server.commands.evaluate_ablations import AblationOptions, ask_ablations, compare_text_metrics
from server.commands.evaluate_progress import progress_bar
from server.commands.evaluate_slides import pictures_of
from server.machine.redis_server import free_loopback_port
from synthetic.slide_truth import slide_truth
from synthetic.write_slide import write_synthetic_slide
from synthetic.write_wsi_bench import name_slides, write_wsi_bench

# Far from the seeds of the examination and of training.
FIRST_SEED: Final = 2_000_200_000
FIRST_SEEN_SEED: Final = 2_000_300_000
SEEN_SLIDES: Final = 12
# Seen at low power: a thumbnail of 1,024 px shows no more.
SEEN_MPP: Final = 1.0
# A drawn slide has some 120 tiles: the usual budgets would leave all of them.
BUDGETS: Final = (4, 16, 64)
STAND_IN_NOTE: Final = "A stand-in by rules, no model: it knows the drawn world and"


@dataclass(frozen=True)
class DemoRun:
    """`questions_each` of every task, None all. With `ablations` the demo model is also asked about slides that lack
    something, and text metrics are held against reports."""

    out: Path
    slides: int = 12
    data_dir: Path | None = None
    questions_each: int | None = 12
    ablations: bool = False


def evaluate_demo(run: DemoRun) -> None:
    """The command.

    Raises:
        CommandError: a slide failed, or a model gave no answer.
    """
    seeds = range(FIRST_SEED, FIRST_SEED + run.slides)
    named = write_wsi_bench(run.out / "questions", seeds)
    seen = range(FIRST_SEEN_SEED, FIRST_SEEN_SEED + SEEN_SLIDES)
    slides = {run.out / "slides" / f"{slide.name}.svs": (slide.seed, 0.5) for slide in named}
    seen_paths = {run.out / "seen" / f"{slide.name}.svs": (slide.seed, SEEN_MPP) for slide in name_slides(seen)}
    draw_missing({**slides, **seen_paths})
    asked = AskOptions(
        questions=run.out / "questions" / "dataset",
        out=run.out,
        name="demo",
        slides=run.out / "slides",
        paraphrases=None,
        limit=run.questions_each,
    )
    with ExitStack() as resources:
        data_dir = run.data_dir or run.out / "server"
        port = free_loopback_port()
        resources.enter_context(running_server(data_dir, port))
        demo = replace(asked, eyepiece=f"http://127.0.0.1:{port}")
        ask(demo)
        if run.ablations:
            ask_ablations(AblationOptions(replace(demo, name="demo-ablated"), BUDGETS, draws=1))
    known = seen_slides(list(seen_paths), [seed for seed, _ in seen_paths.values()])
    with ExitStack() as resources:
        thumbnails = resources.enter_context(serve(ThumbnailStandIn(known)))
        note = f"{STAND_IN_NOTE} answers for the most alike of {SEEN_SLIDES} thumbnails that it has seen."
        ask(replace(asked, name="thumbnail", endpoint=thumbnails, model="nearest-thumbnail", note=note))
        note = f"{STAND_IN_NOTE} always has the most common slide in mind."
        ask(replace(asked, name="text-only", endpoint=thumbnails, model="most-common-slide", view="none", note=note))
        address = resources.enter_context(serve(rule_judge))
        judge(JudgeOptions(run.out, address, "rule-judge (stand-in)", repeats=2))
    if run.ablations:
        compare_text_metrics(RunFolder(run.out))
    score(ScoreCommand(run.out))


def draw_missing(slides: dict[Path, tuple[int, float]]) -> None:
    """Draws each slide (seed, µm/px) whose file is not there yet, in another process."""
    todo = {path: wanted for path, wanted in slides.items() if not path.is_file()}
    for folder in {path.parent for path in todo}:
        folder.mkdir(parents=True, exist_ok=True)
    # Started anew rather than forked: threads are running here.
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as artists, progress_bar("draw", len(todo)) as on:
        for _ in artists.map(draw_one, todo, todo.values()):
            on()


def draw_one(path: Path, wanted: tuple[int, float]) -> None:
    """One slide; its file appears when it is whole."""
    seed, mpp = wanted
    part = path.with_name(f"part-{path.name}")
    write_synthetic_slide(part, seed=seed, mpp=mpp)
    part.replace(path)


def seen_slides(paths: Sequence[Path], seeds: Sequence[int]) -> list[SeenSlide]:
    """What the thumbnail's stand-in has seen, by the very thumbnails that it will be shown."""
    pictures = pictures_of({path.name: path for path in paths}, "thumbnail")
    looks = [look_of(pictures(Shown("slide", path.name))[0]) for path in paths]
    return [SeenSlide(look, slide_truth(seed)) for look, seed in zip(looks, seeds, strict=True) if look is not None]
