"""`eyepiece demo`: from nothing to streamed answers beside the truth, through every real component.

`eyepiece up` as a child → a synthetic slide → upload → a question and two follow-ups, and the question to every further
model of EYEPIECE_MODELS → stay until Ctrl-C.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from server.commands.api_client import ApiClient
from server.commands.ask import Question, print_doubts, print_notice, stream_answer
from server.commands.make_slide import SlideOptions, make_slide
from server.commands.outcome import CommandError, ExitCode
from server.commands.terminal import print_now, printable
from server.commands.upload import UploadOptions, describe_slide, upload_and_wait
from server.machine.supervise import die_with_parent

if TYPE_CHECKING:
    from synthetic.questions.question import Question as ExamQuestion
    from synthetic.slide_truth import SlideTruth

STOP_GRACE_S = 180.0  # `up` stops its components one after the other, each with a grace of its own


@dataclass(frozen=True)
class DemoOptions:
    """`seed` None draws another slide each time; `once` ends after the answers."""

    data_dir: Path
    port: int
    seed: int | None
    once: bool


def demo(options: DemoOptions) -> None:
    """The whole demonstration.

    Raises:
        CommandError: anything on the way failed.
    """
    with (
        running_server(options.data_dir, options.port) as server,
        ApiClient(f"http://127.0.0.1:{options.port}") as client,
    ):
        path, truth = sample_slide(options.data_dir, options.seed)
        print(f"\nA synthetic slide, seed {truth.seed}: {path}", flush=True)
        slide = upload_and_wait(client, UploadOptions(path), Console(stderr=True))
        print(describe_slide(slide, client.models()))
        done = examine(client, slide["id"], truth)
        ask_other_models(client, slide["id"], truth)
        print(f"\nThe truth: {path.with_suffix('.json')}")
        print(next_steps(client.base_url, slide["id"], done["conversation_id"], options.once), flush=True)
        if not options.once:
            _stay(server)


@contextmanager
def running_server(data_dir: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """`eyepiece up`, ready; stopped at the end, and by the kernel if this process is killed.

    Exits as it did when it does not get ready: its own message stands on the terminal already.
    """
    reading, writing = os.pipe()
    command = [sys.executable, "-m", "server", "up", "--notify-fd", str(writing)]
    command += ["--host", "127.0.0.1", "--port", str(port), "--data-dir", str(data_dir)]
    process = subprocess.Popen(
        command,
        env={**os.environ, "PYTHONSAFEPATH": "1"},
        pass_fds=(writing,),
        start_new_session=True,  # Ctrl-C is ours to handle
        preexec_fn=die_with_parent(signal.SIGTERM),
    )
    os.close(writing)
    try:
        with open(reading, "rb") as notifications:
            if notifications.read() != b"ready\n":
                sys.exit(process.wait() or ExitCode.FAILED)
        yield process
    finally:
        _stop(process)


def sample_slide(data_dir: Path, seed: int | None) -> tuple[Path, "SlideTruth"]:
    """A slide of this seed, or of any, and what is true of it; drawn anew, since an older release draws others."""
    folder = data_dir / "sample-slides"
    seed = int.from_bytes(os.urandom(4)) if seed is None else seed
    sample = SlideOptions(folder / f"sample-{seed}.svs", seed)
    for path in (sample.path, sample.truth_path):
        path.unlink(missing_ok=True)
    return sample.path, make_slide(sample)


def examine(client: ApiClient, slide_id: str, truth: "SlideTruth") -> dict[str, Any]:
    """Asks in one conversation and prints every answer as it comes, beside the truth. Returns the last `done`.

    Raises:
        CommandError: the server refused a question, or an answer broke off.
    """
    done: dict[str, Any] = {}
    for turn, question in enumerate(demo_questions(truth), start=1):
        print(f"\n{'> ' if turn == 1 else '> (follow-up) '}{question.text}", flush=True)
        asked = Question(slide_id, question.text, done.get("conversation_id"))
        done = stream_answer(client, asked, end="", on_notice=print_notice if turn == 1 else print_doubts)
        print_now(f"  | truth: {verdict(question, truth, done['answer'])}\n  {timing(done)}\n")
    return done


def ask_other_models(client: ApiClient, slide_id: str, truth: "SlideTruth") -> None:
    """Encodes the slide for every model but the first, and asks each the first question.

    Raises:
        CommandError: the slide cannot be encoded for it, the server refused the question, or an answer broke off.
    """
    question = demo_questions(truth)[0]
    for model in client.model_names()[1:]:
        print(f"\n> ({model}) {question.text}", flush=True)
        client.encode(slide_id, None, urgent=False, model=model)
        *_, last = client.encode_events(slide_id, model)
        if last.name == "failed":
            raise CommandError(printable(last.data["detail"]), ExitCode.FAILED, last.data["code"])
        done = stream_answer(client, Question(slide_id, question.text, model=model), end="")
        print_now(f"  | truth: {verdict(question, truth, done['answer'])}\n  {timing(done)}\n")
        print_now(f"  {printable(done['notice'])}\n")


def demo_questions(truth: "SlideTruth") -> "list[ExamQuestion]":
    """What kind of tissue, where the necrosis is, and one with options, in an order that depends on the slide."""
    import numpy as np

    from synthetic.questions.question import Question as ExamQuestion
    from synthetic.questions.question import letter_question
    from synthetic.questions.topics import GRADE, NECROSIS, PATTERN
    from synthetic.questions.wordings import SEEN

    return [
        ExamQuestion(PATTERN.task, PATTERN.name, "free", "What is the growth pattern?", PATTERN.answer(truth)),
        ExamQuestion(NECROSIS.task, NECROSIS.name, "free", "Where is the necrosis?", NECROSIS.answer(truth)),
        letter_question(GRADE, truth, SEEN, np.random.default_rng(truth.seed)),
    ]


def verdict(question: "ExamQuestion", truth: "SlideTruth", answer: str) -> str:
    """The truth in words and whether the answer says it, e.g. "papillary ✓" or "B, grade 2 ✗"."""
    from evaluation.judge import Asked, judge

    (judgement,) = judge(Asked("demo", question, truth, truth), answer)
    words = dict.fromkeys((judgement.wanted, judgement.phrase))
    return f"{', '.join(words)} {'✓' if judgement.is_right else '✗'}"


def timing(done: dict[str, Any]) -> str:
    """How long it took; a follow-up finds the slide and the turns before it in the caches."""
    usage, first_ms = done["usage"], done["timing"]["time_to_first_token_ms"]
    first = "no token" if first_ms is None else f"first token after {first_ms:.0f} ms"
    return (
        f"({first}, embedding {done['timing']['cache_ms']:.1f} ms, "
        f"{usage['cached_tokens']} of {usage['prompt_tokens']} prompt tokens cached)"
    )


def next_steps(url: str, slide_id: str, conversation_id: str, once: bool) -> str:
    """Commands to copy."""
    server = "--url " + url + " " if url != "http://127.0.0.1:8000" else ""
    start = "The server stops now; start it again with `make demo`, then:" if once else "Go on, in another terminal:"
    return (
        f"\nURL    {url}\nslide  {slide_id}\n\n{start}\n\n"
        f'  .venv/bin/eyepiece ask {server}{slide_id} "How dense are the lymphocytes?" '
        f"--conversation {conversation_id}\n\n"
        f"  curl -N {url}/v1/slides/{slide_id}/questions "
        "-H 'Content-Type: application/json' -d '{\"question\": \"Write a report.\"}'\n"
    )


def _stay(server: subprocess.Popen[bytes]) -> None:
    try:
        server.wait()
    except KeyboardInterrupt:
        return  # the normal end
    raise CommandError("The server ended by itself; see its messages above.", ExitCode.FAILED)


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_GRACE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
