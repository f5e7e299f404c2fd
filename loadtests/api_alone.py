"""The API's own time: what it adds before a vLLM that takes no time at all, and what a question costs it.

    python -m loadtests.api_alone
    python -m loadtests.api_alone --long

In place of vLLM stands a process that answers at once (stand_in_vllm.py), so that cores are not what is measured and a
change of the API shows within a minute. One client asks in two ways, in turn, of the API and of the stand-in directly.
"""

import argparse
import asyncio
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from benchmarks.write_results import table
from loadtests.answer_streams import AnswerClient
from loadtests.load_model import load_model
from loadtests.load_slides import LoadSlide, upload_slides
from loadtests.overhead import API, BARE, MOST_ADDED_MS, WAYS
from loadtests.own_server import OwnServer, own_server
from loadtests.results_file import percentile, verdict, write_result
from server.machine.redis_server import free_loopback_port
from server.machine.supervise import die_with_parent


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--long", action="store_true", help="1000 questions in place of 200")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder, stand_in_vllm() as llm_url:
        model = load_model(Path(folder, "models"), "tiny")
        with own_server(Path(folder), model.manifest.name, llm_url=llm_url) as server:
            (slide,) = upload_slides(server, 1)
            first_text_ms, cpu_ms = asyncio.run(_measure(server, slide, 1000 if options.long else 200))
    print(report(first_text_ms, cpu_ms))
    content = {"targets": {"added_ms": MOST_ADDED_MS}, "first_text_ms": first_text_ms, "api_cpu_ms": cpu_ms}
    print(f"\n{write_result('api_alone', content)}")


@contextmanager
def stand_in_vllm(step_s: float = 0.001) -> Iterator[str]:
    """The URL of stand_in_vllm.py, which makes a token for each running answer every `step_s`."""
    port = free_loopback_port()
    command = [sys.executable, "-m", "loadtests.stand_in_vllm", str(port), str(step_s)]
    with subprocess.Popen(command, preexec_fn=die_with_parent(signal.SIGKILL)) as process:
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            process.kill()


async def _measure(server: OwnServer, slide: LoadSlide, questions: int) -> tuple[dict[str, list[float]], list[float]]:
    """Milliseconds to the first token by way; CPU milliseconds of the API for each question that it was asked."""
    clients = {way: AnswerClient() for way in WAYS}
    first_text_ms: dict[str, list[float]] = {way: [] for way in WAYS}
    cpu_ms = []
    for number in range(questions):
        for way in list(WAYS)[:: 1 if number % 2 == 0 else -1]:
            request = await WAYS[way](server, slide, f"What does region {number} show?")
            cpu_s = server.cpu_s("api")
            answer = await clients[way].ask(request)
            first_text_ms[way].append(1000 * answer.first_text_s)
            if way == API:
                cpu_ms.append(1000 * (server.cpu_s("api") - cpu_s))
    for client in clients.values():
        await client.close()
    return first_text_ms, cpu_ms


def report(first_text_ms: dict[str, list[float]], cpu_ms: Sequence[float]) -> str:
    """The table, and whether the target is met."""
    rows = [
        (way, *(f"{it:.1f}" for it in (min(found), median(found), percentile(found, 99))))
        for way, found in first_text_ms.items()
    ]
    added = median(ours - bare for ours, bare in zip(first_text_ms[API], first_text_ms[BARE], strict=True))
    return "\n".join(
        [
            table(("first token", "least ms", "median ms", "p99 ms"), rows),
            "",
            f"Added: {added:.1f} ms, target {MOST_ADDED_MS:g}, {verdict(added <= MOST_ADDED_MS)}.",
            f"CPU of the API for a question and its answer: {sum(cpu_ms) / len(cpu_ms):.1f} ms.",
        ]
    )


if __name__ == "__main__":
    main()
