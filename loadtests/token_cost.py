"""The CPU that a streamed token costs the API; with a real vLLM, beside what it costs vLLM's own API server.

    python -m loadtests.token_cost
    python -m loadtests.token_cost --real

Many answers stream at once, short and long ones in turn, in both dialects. Their CPU seconds, by process, are taken
for cost = requests × a + tokens × b, and b is what a token costs. CPU time counts, so that a busy machine slows the run
and does not change the result much. How many tokens came in one event is said beside it, because tokens that wait for
the CPU travel together and cost less.

In place of vLLM stands a process that makes one token for each answer in every step (stand_in_vllm.py). With --real it
is vLLM itself, and the costs of both servers are of the same answers.
"""

import argparse
import asyncio
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path

from benchmarks.take_turns import Spread, spread
from benchmarks.write_results import table
from loadtests.answer_streams import AnswerClient, Request, StreamedAnswer
from loadtests.api_alone import stand_in_vllm
from loadtests.load_model import load_model
from loadtests.load_slides import LoadSlide, api_request, chat_request, upload_slides
from loadtests.own_server import OwnServer, cpu_s_of, own_server
from loadtests.results_file import verdict, write_result

API, VLLM = "API", "vLLM's API server"
MOST_TOKEN_MS = 0.1
SHORT_TOKENS, LONG_TOKENS = 16, 256
# A token every 40 ms is what a model of 7 billion takes in a large batch on a GPU.
_STEP_S = 0.04
RequestOf = Callable[[OwnServer, LoadSlide, str, int], Request]
_numbers = count()


def _question(server: OwnServer, slide: LoadSlide, text: str, max_tokens: int) -> Request:
    return api_request(server, slide, text, max_tokens=max_tokens)


DIALECTS: dict[str, RequestOf] = {"questions": _question, "chat completions": chat_request}


@dataclass(frozen=True)
class Batch:
    """Answers of one length that streamed at once: how many, their tokens and events, CPU seconds by process."""

    requests: int
    tokens: int
    pieces: int
    cpu_s: Mapping[str, float]


@dataclass(frozen=True)
class Round:
    """Short answers and long ones, as many of each."""

    short: Batch
    long: Batch

    def token_ms(self, process: str) -> float:
        """CPU of one token."""
        more_s = self.long.cpu_s[process] - self.short.cpu_s[process]
        return 1000 * more_s / (self.long.tokens - self.short.tokens)

    def request_ms(self, process: str) -> float:
        """CPU of a request without its tokens."""
        of_tokens_s = self.token_ms(process) * self.short.tokens / 1000
        return 1000 * (self.short.cpu_s[process] - of_tokens_s) / self.short.requests


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, write the JSON."""
    options = _parser().parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder, tiny_server(Path(folder), real=options.real) as server:
        slides = upload_slides(server, options.slides)
        rounds = asyncio.run(_measure(server, slides, options))
    print(report(rounds))
    content = {
        "targets": {"token_ms": MOST_TOKEN_MS},
        "clients": options.clients,
        "vllm": "real" if options.real else "stand-in",
        "rounds": {dialect: [asdict(it) for it in found] for dialect, found in rounds.items()},
    }
    print(f"\n{write_result('token_cost_real' if options.real else 'token_cost', content)}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--real", action="store_true", help="a real vLLM with a tiny model; default: a stand-in")
    parser.add_argument("--long", action="store_true", help="9 rounds in place of 3")
    parser.add_argument("--clients", type=int, default=48, help="answers at once (default: %(default)s)")
    parser.add_argument("--slides", type=int, default=4, help="that they ask about (default: %(default)s)")
    return parser


@contextmanager
def tiny_server(folder: Path, *, real: bool) -> Iterator[OwnServer]:
    """A server with the model `load-tiny`, before a vLLM or what stands in for it."""
    model = load_model(folder / "models", "tiny")
    if real:
        with own_server(folder, model.manifest.name) as server:
            yield server
    else:
        with stand_in_vllm(_STEP_S) as llm_url, own_server(folder, model.manifest.name, llm_url=llm_url) as server:
            yield server


async def _measure(
    server: OwnServer, slides: Sequence[LoadSlide], options: argparse.Namespace
) -> dict[str, list[Round]]:
    processes = {API: server.process("api")} | ({VLLM: server.vllm_api_server()} if options.real else {})

    async def batch(request_of: RequestOf, tokens: int) -> Batch:
        requests = [
            request_of(server, slides[number % len(slides)], f"What is at {next(_numbers)}?", tokens)
            for number in range(options.clients)
        ]
        before = {name: cpu_s_of(process) for name, process in processes.items()}
        answers = await asyncio.gather(*map(_ask, requests))
        cpu_s = {name: cpu_s_of(process) - before[name] for name, process in processes.items()}
        return Batch(len(answers), sum(it.tokens for it in answers), sum(it.pieces for it in answers), cpu_s)

    rounds: dict[str, list[Round]] = {dialect: [] for dialect in DIALECTS}
    for request_of in DIALECTS.values():  # connections, prefixes of the slides
        await batch(request_of, SHORT_TOKENS)
    for number in range(9 if options.long else 3):
        for dialect in list(DIALECTS)[:: 1 if number % 2 == 0 else -1]:
            short = await batch(DIALECTS[dialect], SHORT_TOKENS)
            rounds[dialect].append(Round(short, await batch(DIALECTS[dialect], LONG_TOKENS)))
    return rounds


async def _ask(request: Request) -> StreamedAnswer:
    client = AnswerClient()
    answer = await client.ask(request)
    await client.close()
    return answer


def report(rounds: Mapping[str, Sequence[Round]]) -> str:
    """The table, and whether the targets are met."""
    processes = list(next(iter(rounds.values()))[0].short.cpu_s)
    rows, worst = [], dict.fromkeys(processes, 0.0)
    for dialect, found in rounds.items():
        tokens, pieces = sum(it.long.tokens for it in found), sum(it.long.pieces for it in found)
        for process in processes:
            token, request = _spread(found, process, Round.token_ms), _spread(found, process, Round.request_ms)
            worst[process] = max(worst[process], token.median)
            row = (dialect, process, _shown(token, 3), _shown(request, 1), f"{tokens / pieces:.2f}")
            rows.append(row)
    header = ("dialect", "process", "CPU ms/token", "CPU ms/request", "tokens an event")
    ours = worst[API]
    lines = [table(header, rows), "", f"A token: {ours:.3f} ms, target {MOST_TOKEN_MS:g}, "]
    lines[-1] += f"{verdict(ours <= MOST_TOKEN_MS)}."
    if VLLM in worst:
        lines.append(f"vLLM's API server: {worst[VLLM]:.3f} ms; no more than that: {verdict(ours <= worst[VLLM])}.")
    return "\n".join(lines)


def _spread(rounds: Sequence[Round], process: str, value: Callable[[Round, str], float]) -> Spread:
    return spread([value(it, process) for it in rounds])


def _shown(it: Spread, digits: int) -> str:
    return f"{it.median:.{digits}f} ({it.least:.{digits}f}–{it.most:.{digits}f})"


if __name__ == "__main__":
    main()
