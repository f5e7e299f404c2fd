"""What the API adds to vLLM: time to first token, throughput; and how much sooner a follow-up starts than a cold slide.

    python -m loadtests.overhead
    python -m loadtests.overhead --long

A server is started here. The same client asks the same questions about the same slides in two ways, of the API and of
the vLLM behind it, with the very request that the API would send. The ways take turns, and what is reported is the
median of the rounds' differences and ratios.
"""

import argparse
import asyncio
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path
from statistics import median

from benchmarks.take_turns import Spread, spin_share, spread
from benchmarks.write_results import table
from loadtests.answer_streams import AnswerClient, Request, StreamedAnswer
from loadtests.load_model import SIZES, WORDS, load_model
from loadtests.load_slides import LoadSlide, Turns, api_request, bare_request, upload_slides
from loadtests.own_server import OwnServer, own_server
from loadtests.results_file import percentile, verdict, write_result

API, BARE = "API", "bare vLLM"
CLIENTS = (1, 4, 16)
MOST_ADDED_MS = 3.0
LEAST_THROUGHPUT = 0.95
MOST_FOLLOW_UP = 0.35
_numbers = count()


@dataclass(frozen=True)
class Round:
    """What one way did in one round: first tokens in seconds, answers and tokens a second, CPU of the API."""

    first_text_s: list[float]
    answers_per_s: float
    tokens_per_s: float
    api_cpu_s: float

    @property
    def median_ms(self) -> float:
        """Of the times to first token."""
        return 1000 * median(self.first_text_s)


@dataclass(frozen=True)
class Comparison:
    """Both ways with so many clients, round by round."""

    clients: int
    rounds: dict[str, list[Round]]

    def added_ms(self) -> Spread:
        """The API's median time to first token less vLLM's."""
        return spread([ours.median_ms - bare.median_ms for ours, bare in self._pairs()])

    def added_p99_ms(self) -> float:
        """The same of the 99th percentile, of all rounds together."""
        pooled = {way: [one for it in rounds for one in it.first_text_s] for way, rounds in self.rounds.items()}
        return 1000 * (percentile(pooled[API], 99) - percentile(pooled[BARE], 99))

    def throughput(self) -> Spread:
        """Tokens a second through the API, as a share of vLLM's."""
        return spread([ours.tokens_per_s / bare.tokens_per_s for ours, bare in self._pairs()])

    def api_cpu_ms(self) -> float:
        """CPU of the API for one question."""
        return median(1000 * it.api_cpu_s / len(it.first_text_s) for it in self.rounds[API])

    def _pairs(self) -> list[tuple[Round, Round]]:
        return list(zip(self.rounds[API], self.rounds[BARE], strict=True))


@dataclass(frozen=True)
class FollowUp:
    """Seconds to the first token about a slide that vLLM has never seen, and of the next question about it."""

    cold_s: float
    follow_up_s: float
    follow_up_cached_tokens: int


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, write the JSON."""
    options = _parser().parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        data_dir = Path(folder)
        model = load_model(data_dir / "models", options.size)
        with own_server(data_dir, model.manifest.name) as server:
            slides = upload_slides(server, max(options.clients))
            new = upload_slides(server, 2 * (options.new_slides or (25 if options.long else 5)))
            comparisons, follow_ups = asyncio.run(_measure(server, slides, new, options))
    print(report(comparisons, follow_ups))
    content = {
        "size": options.size,
        "targets": {"added_ms": MOST_ADDED_MS, "throughput": LEAST_THROUGHPUT, "follow_up": MOST_FOLLOW_UP},
        "spin_share": round(spin_share(), 3),
        "comparisons": [asdict(it) for it in comparisons],
        "follow_ups": {way: [asdict(it) for it in found] for way, found in follow_ups.items()},
    }
    print(f"\n{write_result('overhead', content)}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="small", help="of the language model (default: %(default)s)")
    parser.add_argument("--long", action="store_true", help="enough questions for a 99th percentile")
    parser.add_argument("--clients", type=int, nargs="+", default=CLIENTS, help="default: 1 4 16")
    parser.add_argument("--rounds", type=int, help="default: 5, --long 11")
    parser.add_argument("--questions", type=int, help="of each client in a round; default: 4, --long 12")
    parser.add_argument("--new-slides", type=int, help="for follow-ups, of each way; default: 5, --long 25")
    return parser


async def _measure(
    server: OwnServer, slides: Sequence[LoadSlide], new: Sequence[LoadSlide], options: argparse.Namespace
) -> tuple[list[Comparison], dict[str, list[FollowUp]]]:
    rounds = options.rounds or (11 if options.long else 5)
    questions = options.questions or (12 if options.long else 4)
    for request_of in WAYS.values():  # every slide's prefix is warm in both ways
        await _round(server, request_of, slides, 1)
    comparisons = []
    for clients in options.clients:
        found: dict[str, list[Round]] = {way: [] for way in WAYS}
        for number in range(rounds):
            for way in list(WAYS)[:: 1 if number % 2 == 0 else -1]:
                found[way].append(await _round(server, WAYS[way], slides[:clients], questions))
        comparisons.append(Comparison(clients, found))
    return comparisons, await _follow_ups(server, new)


async def _api_request(server: OwnServer, slide: LoadSlide, question: str) -> Request:
    return api_request(server, slide, question)


RequestOf = Callable[[OwnServer, LoadSlide, str], Awaitable[Request]]
WAYS: dict[str, RequestOf] = {API: _api_request, BARE: bare_request}


async def _round(server: OwnServer, request_of: RequestOf, slides: Sequence[LoadSlide], questions: int) -> Round:
    """A client for each slide, all at once, each with its questions one after the other."""
    # Before the clock starts: vLLM's requests are work that the API does for its clients.
    prepared = [[await request_of(server, slide, _question()) for _ in range(questions)] for slide in slides]
    cpu_s, started = server.cpu_s("api"), time.perf_counter()
    answers = [it for client in await asyncio.gather(*map(_ask_all, prepared)) for it in client]
    wall_s = time.perf_counter() - started
    return Round(
        [it.first_text_s for it in answers],
        len(answers) / wall_s,
        sum(it.tokens for it in answers) / wall_s,
        server.cpu_s("api") - cpu_s,
    )


async def _ask_all(requests: Sequence[Request]) -> list[StreamedAnswer]:
    client = AnswerClient()
    answers = [await client.ask(request) for request in requests]
    await client.close()
    return answers


async def _follow_ups(server: OwnServer, slides: Sequence[LoadSlide]) -> dict[str, list[FollowUp]]:
    """The ways take turns, each with slides that nobody has asked about."""
    found: dict[str, list[FollowUp]] = {API: [], BARE: []}
    for number, slide in enumerate(slides):
        if number % 2:
            found[API].append(await _follow_up_of_api(server, slide))
        else:
            found[BARE].append(await _follow_up_of_vllm(server, slide))
    return found


async def _follow_up_of_api(server: OwnServer, slide: LoadSlide) -> FollowUp:
    (cold,) = await _ask_all([api_request(server, slide, _question())])
    (next_one,) = await _ask_all([api_request(server, slide, _question(), cold.closing["conversation_id"])])
    return FollowUp(cold.first_text_s, next_one.first_text_s, next_one.usage["cached_tokens"])


async def _follow_up_of_vllm(server: OwnServer, slide: LoadSlide) -> FollowUp:
    question = _question()
    (cold,) = await _ask_all([await bare_request(server, slide, question)])
    turns: Turns = (question, cold.text)
    (next_one,) = await _ask_all([await bare_request(server, slide, _question(), turns)])
    cached = next_one.usage["prompt_tokens_details"]["cached_tokens"]
    return FollowUp(cold.first_text_s, next_one.first_text_s, cached)


def report(comparisons: Sequence[Comparison], follow_ups: dict[str, list[FollowUp]]) -> str:
    """Two tables, and whether the targets are met."""
    header = ("clients", "vLLM ms", "added ms", "added p99 ms", "answers/s", "API ÷ vLLM", "API CPU ms/question")
    rows = [_row(it) for it in comparisons]
    ratios = {way: spread([it.follow_up_s / it.cold_s for it in found]) for way, found in follow_ups.items()}
    cold_rows = [_cold_row(way, found, ratios[way]) for way, found in follow_ups.items()]
    added, most = comparisons[0].added_ms().median, comparisons[-1]
    share, follow_up = most.throughput().median, ratios[API].median
    return "\n".join(
        [
            table(header, rows),
            "",
            table(("first token", "cold ms", "follow-up ms", "follow-up ÷ cold", "cached tokens"), cold_rows),
            "",
            f"Added with {comparisons[0].clients} client: {added:.1f} ms, target {MOST_ADDED_MS:g}, "
            f"{verdict(added <= MOST_ADDED_MS)}.",
            f"Throughput with {most.clients} clients: {share:.2f} of vLLM's, target {LEAST_THROUGHPUT:g}, "
            f"{verdict(share >= LEAST_THROUGHPUT)}.",
            f"Follow-up ÷ cold through the API: {follow_up:.2f}, target {MOST_FOLLOW_UP:g}, "
            f"{verdict(follow_up <= MOST_FOLLOW_UP)}.",
        ]
    )


def _row(it: Comparison) -> tuple[str, ...]:
    added, throughput = it.added_ms(), it.throughput()
    return (
        str(it.clients),
        f"{median(one.median_ms for one in it.rounds[BARE]):.1f}",
        f"{added.median:.1f} ({added.least:.1f}–{added.most:.1f})",
        f"{it.added_p99_ms():.1f}",
        f"{median(one.answers_per_s for one in it.rounds[API]):.2f}",
        f"{throughput.median:.2f} ({throughput.least:.2f}–{throughput.most:.2f})",
        f"{it.api_cpu_ms():.1f}",
    )


def _cold_row(way: str, found: Sequence[FollowUp], ratio: Spread) -> tuple[str, ...]:
    return (
        way,
        f"{1000 * median(it.cold_s for it in found):.0f}",
        f"{1000 * median(it.follow_up_s for it in found):.0f}",
        f"{ratio.median:.2f} ({ratio.least:.2f}–{ratio.most:.2f})",
        str(min(it.follow_up_cached_tokens for it in found)),
    )


def _question() -> str:
    """As long as any other and unlike all before, so that what vLLM has cached ends at the slide."""
    number = next(_numbers)
    first, second = WORDS[number % len(WORDS)], WORDS[number // len(WORDS) % len(WORDS)]
    return f"What does this slide show in the {first} {second} region of {number:06d}?"


if __name__ == "__main__":
    main()
