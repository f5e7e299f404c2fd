"""`python -m training pairs …`: preference pairs from a feedback export or from a judge, as a file of JSON lines."""

import argparse
import os
from pathlib import Path

import httpx

from training.errors import TrainingError
from training.preference.from_feedback import pairs_from_feedback
from training.preference.from_judge import JudgeEndpoint, ask_endpoint, judged_pairs, read_candidates
from training.preference.pairs import PairCounts, write_pairs

# Never an argument: those are seen by everybody on the machine.
_KEY = "EYEPIECE_JUDGE_KEY"


def add_pair_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `pairs`."""
    group = parser.add_argument_group("pairs")
    group.add_argument("--feedback", type=Path, help="what `eyepiece feedback export` printed")
    group.add_argument("--of-model", default="demo", help="use feedback on this model's answers alone")
    group.add_argument(
        "--words-are-answers",
        action="store_true",
        help="the words of a disagreement are what should have been answered",
    )
    group.add_argument("--candidates", type=Path, help="questions with two answers each, for a judge to choose from")
    group.add_argument("--judge-url", help=f"its endpoint, up to /v1; its key, if it needs one, in {_KEY}")
    group.add_argument("--judge-model", help="its name there")


def write_pairs_from(options: argparse.Namespace) -> None:
    """Writes the file that `--out` names, and says what was left out and why.

    Raises:
        TrainingError: neither source was named, a file is wrong, the judge does not answer, or there is no pair.
    """
    if options.out is None or (options.feedback is None) == (options.candidates is None):
        raise TrainingError("Name one source, --feedback or --candidates, and the file to write, --out.")
    if options.feedback is not None:
        found = pairs_from_feedback(options.feedback, options.of_model, words_are_answers=options.words_are_answers)
        pairs, counts = found.pairs, found.counts
    else:
        if not (options.judge_url and options.judge_model):
            raise TrainingError("Name the judge: --judge-url and --judge-model.")
        endpoint = JudgeEndpoint(options.judge_url, options.judge_model, os.environ.get(_KEY, ""))
        with httpx.Client() as client:
            pairs, counts = judged_pairs(
                read_candidates(options.candidates), ask_endpoint(endpoint, client), endpoint.model
            )
    _require_some(counts)
    write_pairs(options.out, pairs)
    print(counts.text())


def _require_some(counts: PairCounts) -> None:
    if not counts.pairs:
        raise TrainingError(f"There is nothing to write. {counts.text()}")
