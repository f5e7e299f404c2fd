"""One run: slides are uploaded, encoded and asked about while processes are killed; then everything is counted.

What the seed fixes: the slides' pixels, who is killed at which slide's which progress, who is uploaded twice, who asks
what. What it cannot fix: how far the others are at that moment, which of several workers has a slide, whether a process
that was to be killed is still there when its time has come. Such a kill is not dropped: it moves to the next slide that
is being encoded.
"""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from chaos.audit import job_counts, redis_findings, said_ready, store_findings
from chaos.campaign import Campaign
from chaos.fingerprint import fingerprint
from chaos.judge import (
    answer_findings,
    calm_answers,
    calm_findings,
    client_findings,
    event_findings,
    listed_findings,
    log_findings,
    poison_findings,
    poisoned,
    stand_ins_answers,
)
from chaos.plan import Victim, kill_plan
from chaos.poison import Poison
from chaos.reference import undisturbed
from chaos.report import Report
from chaos.slides import draw_slides
from chaos.slow_model import slow_model
from chaos.stack import Stack, running_stack
from chaos.strays import Strays, watched_strays
from redis import Redis

from encoders.types import SlideEmbedding

_SLIDES_PER_SEED = 10_000

EncodeUndisturbed = Callable[[Mapping[str, Path]], Mapping[str, SlideEmbedding]]


@dataclass(frozen=True)
class Options:
    """How large a run; `spare` slides are uploaded only for kills that found no victim."""

    seed: int
    jobs: int
    victims: Counter[Victim]
    poisons: tuple[Poison, ...] = ()
    spare: int = 3
    workers: int = 1
    side_px: int = 2048
    real_vllm: bool = False
    reconcile_every_s: int = 2


def run(options: Options, folder: Path, say: Callable[[str], None] = print) -> Report:
    """Plays it in the empty folder `folder`, which is left as it is: logs, store, Redis' file. `say` hears of steps."""
    say("drawing slides")
    model = slow_model(folder / "data" / "models")
    count = options.jobs + options.spare + len(options.poisons)
    seeds = [options.seed * _SLIDES_PER_SEED + number for number in range(count)]
    slides = draw_slides(folder / "slides", seeds, len(options.poisons), options.side_px)
    plan = kill_plan(options.seed, options.jobs, options.victims)
    settings = {"EYEPIECE_RECONCILE_EVERY_S": str(options.reconcile_every_s)}
    say("starting everything")
    with watched_strays() as strays:
        with running_stack(folder, workers=options.workers, real_vllm=options.real_vllm, settings=settings) as stack:
            drawn = random.Random(options.seed)
            pause_s = 0.5 if options.real_vllm else 0.1
            campaign = Campaign(stack, slides, plan, options.poisons, options.spare, strays, drawn, pause_s)
            say(f"{len(plan)} kills while {options.jobs} slides are encoded")
            asyncio.run(campaign.play())
            say("waiting until nothing runs any more, then counting")
            report = _look(options, stack, campaign, lambda uploaded: undisturbed(model, uploaded, folder / "slides"))
        return _with_strays(report, strays, stack.temporary_dir)


def _look(options: Options, stack: Stack, campaign: Campaign, encode_undisturbed: EncodeUndisturbed) -> Report:
    uploaded = {it: path for it, path in campaign.slides.sound.items() if it in campaign.followers}
    poison = tuple(poisoned(each, campaign) for each in campaign.poisoners)
    with Redis.from_url(stack.redis_url) as redis:
        findings = [*calm_findings(stack, redis), *(it for each in poison for it in poison_findings(each))]
        calm_since = time.monotonic()
        embeddings = encode_undisturbed(uploaded)
        # What is left to the reconciler it does in two rounds.
        time.sleep(max(0.0, calm_since + 2 * options.reconcile_every_s + 1 - time.monotonic()))
        findings += [*_findings(options, stack, campaign, embeddings, redis)]
        return Report(
            seed=options.seed,
            took_s=campaign.took_s,
            slides=len(campaign.followers),
            ready=len(campaign.ready),
            poisoned=poison,
            kills=Counter(blow.victim for blow in campaign.executioner.blows),
            kills_moved=campaign.executioner.moved,
            ambushes=campaign.executioner.ambushes,
            jobs=job_counts(redis),
            requeued=int(stack.server.api_metric('eyepiece_slides_reconciled_total{action="requeued"}')),
            ready_said_again=sum(max(0, said_ready(redis, it)[0] - 1) for it in campaign.followers),
            uploaded_twice=campaign.uploaded_twice,
            questions=campaign.asker.asked,
            answers=len(campaign.asker.answered),
            streams_resumed=campaign.notes.resumed,
            clear_errors=campaign.notes.errors,
            findings=tuple(findings),
        )


def _findings(
    options: Options, stack: Stack, campaign: Campaign, embeddings: Mapping[str, SlideEmbedding], redis: Redis
) -> Iterator[str]:
    uploaded, answered = set(campaign.followers), campaign.asker.answered
    expected = {slide_id: fingerprint(embedding) for slide_id, embedding in embeddings.items()}
    yield from client_findings(campaign)
    yield from listed_findings(stack, campaign)
    yield from store_findings(stack.store_dir, expected, uploaded & set(campaign.slides.poisoned), options.workers)
    yield from redis_findings(redis, uploaded)
    for slide_id in expected:
        yield from event_findings(redis, campaign.followers[slide_id])
    right = calm_answers(stack, answered) if options.real_vllm else stand_ins_answers(answered, embeddings)
    yield from answer_findings(answered, right)
    yield from log_findings(stack.log_dir)


def _with_strays(report: Report, strays: Strays, temporary_dir: Path) -> Report:
    """After the end of `up`."""
    temporary = [path for path in sorted(temporary_dir.rglob("*")) if not _is_of_vllm(path)]
    findings = (
        *(f"orphan: the process {line}" for line in strays.processes()),
        *(f"orphan: /dev/shm/{name}" for name in strays.shared_memory()),
        *(f"orphan: the temporary file {path.name}" for path in temporary),
    )
    left_by_vllm = len(list(temporary_dir.rglob("*"))) - len(temporary)
    return replace(
        report,
        openmp_pages=strays.openmp_pages(),
        left_by_vllm=left_by_vllm,
        findings=(*report.findings, *findings),
    )


def _is_of_vllm(path: Path) -> bool:
    """vLLM 0.32 leaves its sockets in TMPDIR even when it ends as it was asked to, and when killed a small file too."""
    return path.is_socket() or path.name.startswith("vllm_dist_")
