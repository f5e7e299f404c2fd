"""`eyepiece demo`: from nothing to a streamed answer, through every real component.

`eyepiece up` as a child → a synthetic slide → upload → question → answer → stay until Ctrl-C.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from server.commands.api_client import ApiClient
from server.commands.ask import Question, answer_footer, stream_answer
from server.commands.make_slide import SEEDS, make_slide
from server.commands.outcome import CommandError, ExitCode
from server.commands.upload import UploadWish, describe_slide, upload_and_wait
from server.supervise import die_with_parent

QUESTION = "What kind of tissue does this slide show?"
STOP_GRACE_S = 180.0  # `up` stops its components one after the other, each with a grace of its own


@dataclass(frozen=True)
class DemoOptions:
    """`seed` None draws another slide each time; `once` ends after the answer."""

    data_dir: Path
    port: int
    seed: int | None
    once: bool


def demo(options: DemoOptions) -> None:
    """The whole demonstration.

    Raises:
        CommandError: anything on the way failed.
    """
    with running_server(options) as server, ApiClient(f"http://127.0.0.1:{options.port}") as client:
        seed = options.seed if options.seed is not None else int.from_bytes(os.urandom(4)) % SEEDS
        path = sample_slide(options.data_dir, seed)
        print(f"\nA synthetic slide, seed {seed}: {path}", flush=True)
        slide = upload_and_wait(client, UploadWish(path), Console(stderr=True))
        print(describe_slide(slide))
        print(f"\n> {QUESTION}", flush=True)
        done = stream_answer(client, Question(slide["id"], QUESTION))
        print(answer_footer(done))
        print(next_steps(client.base_url, slide["id"], done["conversation_id"], options.once), flush=True)
        if not options.once:
            _stay(server)


@contextmanager
def running_server(options: DemoOptions) -> Iterator[subprocess.Popen[bytes]]:
    """`eyepiece up`, ready; stopped at the end, and by the kernel if this process is killed.

    Exits as it did when it does not get ready: its own message stands on the terminal already.
    """
    reading, writing = os.pipe()
    command = [sys.executable, "-m", "server", "up", "--notify-fd", str(writing)]
    command += ["--port", str(options.port), "--data-dir", str(options.data_dir)]
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


def sample_slide(data_dir: Path, seed: int) -> Path:
    """The slide of this seed, drawn if it is not there yet."""
    path = data_dir / "sample-slides" / f"sample-{seed}.svs"
    if not path.exists():
        make_slide(path, seed)
    return path


def next_steps(url: str, slide_id: str, conversation_id: str, once: bool) -> str:
    """Commands to copy."""
    server = "--url " + url + " " if url != "http://127.0.0.1:8000" else ""
    start = "The server stops now; start it again with `make demo`, then:" if once else "Go on, in another terminal:"
    return (
        f"\nURL    {url}\nslide  {slide_id}\n\n{start}\n\n"
        f'  .venv/bin/eyepiece ask {server}{slide_id} "How many nuclei are there?" '
        f"--conversation {conversation_id}\n\n"
        f"  curl -N {url}/v1/slides/{slide_id}/questions "
        "-H 'Content-Type: application/json' -d '{\"question\": \"What do you see?\"}'\n"
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
