"""`eyepiece eval-evidence`: whether evidence lies where the truth does, and whether the model knows its own tissue, all
through the HTTP API."""

import json
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from evaluation.evidence import QUESTION, Kind, SeenEvidence, plan, score
from server.commands.api_client import ApiClient
from server.commands.eval_demo import EvalOptions, answer_patiently, examined_server
from server.commands.eval_slides import ready_slides
from server.commands.outcome import CommandError, ExitCode


def eval_evidence(options: EvalOptions) -> None:
    """The command: prints the scores and what evidence costs, writes the document.

    Raises:
        CommandError: the server refused something, or too little was right.
    """
    started = time.monotonic()
    with examined_server(options) as client:
        seen = list(look(client, options.slides, options.first_seed))
    scores = score(seen)
    for line in scores.lines():
        print(line)
    for it in seen:
        if not it.is_right and it.answer is not None:
            print(f"wrong: {it.kind}, seed {it.seed}: {it.answer!r}, strongest at {it.strongest}")
    asked = [it for it in seen if it.answer is not None]
    if asked:
        tokens, times = (sorted(getattr(it, name) for it in asked) for name in ("prefill_tokens", "total_ms"))
        print(
            f"Evidence of an answer: {tokens[len(tokens) // 2]:,} tokens of prefill, {times[len(times) // 2]:.0f} ms."
        )
    print(f"{len(seen)} slides, seeds from {options.first_seed} on, in {time.monotonic() - started:.0f} s.")
    if options.json_path is not None:
        options.json_path.write_text(json.dumps([asdict(it) for it in seen], indent=2) + "\n")
    if not scores.is_reached:
        raise CommandError("Evidence or familiarity is not what it has to be.", ExitCode.FAILED)


def look(client: ApiClient, slides: int, first_seed: int) -> Iterator[SeenEvidence]:
    """Every slide of the plan, as it gets ready, one after another.

    Raises:
        CommandError: a slide failed, or something was refused.
    """
    planned = plan(slides, first_seed)
    kinds = {specimen: kind for kind, specimen in planned}
    with tempfile.TemporaryDirectory(prefix="eyepiece-eval-") as folder:
        for ready in ready_slides(client, list(kinds), Path(folder)):
            yield _seen(client, kinds[ready.specimen], ready.specimen.seed, ready.slide_id)


def _seen(client: ApiClient, kind: Kind, seed: int, slide_id: str) -> SeenEvidence:
    is_familiar = client.slide(slide_id)["familiarity"]["verdict"] == "familiar"
    if kind in ("finer", "restained"):
        return SeenEvidence(kind, seed, None, None, 0, 0.0, is_familiar)
    done = answer_patiently(client, slide_id, {"question": QUESTION})
    found = client.evidence(slide_id, {"conversation_id": done["conversation_id"], "turn": done["turn"]})
    costs = found["costs"]
    return SeenEvidence(
        kind, seed, done["answer"], _centre(found), costs["prefill_tokens"], costs["total_ms"], is_familiar
    )


def _centre(found: dict[str, Any]) -> tuple[float, float] | None:
    if not found["strongest"]:
        return None
    cell = next(it for it in found["cells"] if it["cell"] == found["strongest"][0])
    return cell["x"] + cell["width"] / 2, cell["y"] + cell["height"] / 2
