"""Eyepiece beside a worker of the usual research-demo kind, with the same weights, slides and questions.

    python -m loadtests.generate_worker
    python -m loadtests.generate_worker --long

Sixteen clients, each with a slide of its own that nobody has asked about before: a first question and follow-ups.
Once through our API and vLLM, once through `generate`, one request at a time (generate_server.py). The two take turns;
while one answers, the other has nothing to do.
"""

import argparse
import asyncio
import subprocess
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import numpy as np
import orjson

from benchmarks.take_turns import spread
from benchmarks.write_results import table
from loadtests.answer_streams import AnswerClient, Request, StreamedAnswer
from loadtests.load_model import SIZES, load_model
from loadtests.load_slides import LoadSlide, Turns, api_request, upload_slides
from loadtests.own_server import OwnServer, own_server
from loadtests.results_file import verdict, write_result
from model_store.contracts.slide_rows import ROWS
from server.commands.environments import vllm_python
from server.commands.up import http_probe
from server.machine.redis_server import free_loopback_port

EYEPIECE, GENERATE = "Eyepiece", "generate"
CLIENTS = 16
LEAST_RATIO = 5.0
QUESTIONS = (
    "What does this slide show in the dense region?",
    "What grade does the smooth region show?",
    "What does the human margin show?",
)
_START_TIMEOUT_S = 300.0


@dataclass(frozen=True)
class Round:
    """What one way did: answers, and seconds on the clock for all of them."""

    texts: list[str]
    wall_s: float

    @property
    def answers_per_s(self) -> float:
        """Of all clients together."""
        return len(self.texts) / self.wall_s


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, write the JSON."""
    options = _parser().parse_args(arguments)
    rounds = options.rounds or (3 if options.long else 1)
    with tempfile.TemporaryDirectory() as folder:
        data_dir = Path(folder)
        model = load_model(data_dir / "models", options.size)
        with own_server(data_dir, model.manifest.name) as server:
            slides = upload_slides(server, rounds * CLIENTS)
            with _generate_server(server, slides) as generate_url:
                found = asyncio.run(_measure(server, generate_url, slides))
    print(report(found))
    content = {
        "size": options.size,
        "clients": CLIENTS,
        "turns": len(QUESTIONS),
        "targets": {"answers_per_s": LEAST_RATIO},
        "rounds": {way: [asdict(it) for it in rounds] for way, rounds in found.items()},
    }
    print(f"\n{write_result('generate_worker', content)}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="small", help="of the language model (default: %(default)s)")
    parser.add_argument("--long", action="store_true", help="three rounds in place of one")
    parser.add_argument("--rounds", type=int)
    return parser


@contextmanager
def _generate_server(server: OwnServer, slides: Sequence[LoadSlide]) -> Iterator[str]:
    folder, port = server.data_dir / "npy", free_loopback_port()
    folder.mkdir()
    for slide in slides:
        np.save(folder / f"{slide.id}.npy", slide.cached.embedding.tensors[ROWS])
    script = Path(__file__).with_name("generate_server.py")
    command = [str(it) for it in (vllm_python(), script, port, server.model.llm_folder, folder)]
    with subprocess.Popen(command) as process:
        try:
            _wait_until_up(process, port)
            yield f"http://127.0.0.1:{port}/answer"
        finally:
            process.terminate()


def _wait_until_up(process: subprocess.Popen[bytes], port: int) -> None:
    deadline, is_up = time.monotonic() + _START_TIMEOUT_S, http_probe("127.0.0.1", port, "/")
    while not is_up():
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError("the generate worker did not start")
        time.sleep(0.2)


# One client's conversation about a slide: its answers.
Converse = Callable[[AnswerClient, LoadSlide], Awaitable[list[StreamedAnswer]]]


async def _measure(server: OwnServer, generate_url: str, slides: Sequence[LoadSlide]) -> dict[str, list[Round]]:
    async def with_eyepiece(client: AnswerClient, slide: LoadSlide) -> list[StreamedAnswer]:
        answers: list[StreamedAnswer] = []
        for question in QUESTIONS:
            conversation = answers[-1].closing["conversation_id"] if answers else None
            answers.append(await client.ask(api_request(server, slide, question, conversation)))
        return answers

    async def with_generate(client: AnswerClient, slide: LoadSlide) -> list[StreamedAnswer]:
        answers: list[StreamedAnswer] = []
        texts: Turns = ()
        for question in QUESTIONS:
            texts = (*texts, question)
            answers.append(await client.ask(_generate_request(generate_url, server, slide, texts)))
            texts = (*texts, answers[-1].text)
        return answers

    ways: dict[str, Converse] = {EYEPIECE: with_eyepiece, GENERATE: with_generate}
    found: dict[str, list[Round]] = {way: [] for way in ways}
    for first in range(0, len(slides), CLIENTS):
        for way, converse in ways.items():
            found[way].append(await _round(converse, slides[first : first + CLIENTS]))
    return found


def _generate_request(url: str, server: OwnServer, slide: LoadSlide, texts: Turns) -> Request:
    max_tokens = server.model.manifest.llm.generation.max_tokens
    return Request(url, orjson.dumps({"slide": slide.id, "texts": texts, "max_tokens": max_tokens}))


async def _round(converse: Converse, slides: Sequence[LoadSlide]) -> Round:
    clients = [AnswerClient() for _ in slides]
    started = time.perf_counter()
    answers = await asyncio.gather(*map(converse, clients, slides))
    wall_s = time.perf_counter() - started
    for client in clients:
        await client.close()
    return Round([it.text for conversation in answers for it in conversation], wall_s)


def report(found: dict[str, list[Round]]) -> str:
    """The table, how many answers were the same, and whether the target is met."""
    rows = [
        (way, str(sum(len(it.texts) for it in rounds)), f"{median(it.answers_per_s for it in rounds):.2f}")
        for way, rounds in found.items()
    ]
    pairs = list(zip(found[EYEPIECE], found[GENERATE], strict=True))
    ratio = spread([ours.answers_per_s / theirs.answers_per_s for ours, theirs in pairs])
    texts = [pair for ours, theirs in pairs for pair in zip(ours.texts, theirs.texts, strict=True)]
    same = sum(ours == theirs for ours, theirs in texts)
    return "\n".join(
        [
            table(("way", "answers", "answers/s"), rows),
            "",
            f"{same} of {len(texts)} answers are the same, word for word.",
            f"Eyepiece ÷ generate with {CLIENTS} clients: {ratio.median:.1f} ({ratio.least:.1f}–{ratio.most:.1f}), "
            f"target {LEAST_RATIO:g}, {verdict(ratio.median >= LEAST_RATIO)}.",
        ]
    )


if __name__ == "__main__":
    main()
