"""Memory: of each process, at rest and while many answers stream; of a slide and of a conversation in Redis.

    python -m loadtests.footprint
    python -m loadtests.footprint --real

The slide has the published size (576 × 768 halves). With --real there is a vLLM too; its model is tiny, so that what is
seen is what vLLM takes without weights and cache of keys and values.
"""

import argparse
import asyncio
import tempfile
from collections.abc import Sequence
from pathlib import Path

import psutil  # type: ignore[import-untyped]
from redis.asyncio import Redis

from benchmarks.write_results import table
from loadtests.answer_streams import AnswerClient
from loadtests.load_slides import LoadSlide, api_request, upload_slides
from loadtests.own_server import TENANT, OwnServer
from loadtests.results_file import write_result
from loadtests.token_cost import tiny_server

TURNS = 5
# Questions and answers as long as a clinician's and WSI-LLaVA's.
_QUESTION = "Does the invasive front show perineural or lymphovascular invasion, and how far from the margin is it?"
_ANSWER_TOKENS = 128


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--real", action="store_true", help="a real vLLM with a tiny model; default: a stand-in")
    parser.add_argument("--clients", type=int, default=48, help="answers at once (default: %(default)s)")
    parser.add_argument("--slides", type=int, default=16, help="in memory and in Redis (default: %(default)s)")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder, tiny_server(Path(folder), real=options.real) as server:
        at_rest = memory_mb()
        slides = upload_slides(server, options.slides)
        peak = asyncio.run(_peak_while_answering(server, slides, options.clients))
        kept = asyncio.run(_bytes_in_redis(server, slides[0]))
    print(report(at_rest, peak, kept))
    content = {"at_rest_mb": at_rest, "peak_mb": peak, "redis_bytes": kept, "turns": TURNS}
    print(f"\n{write_result('footprint_real' if options.real else 'footprint', content)}")


def memory_mb() -> dict[str, float]:
    """Resident memory of the processes under this one, by what they are; several of a kind are added up."""
    found: dict[str, float] = {}
    for process in psutil.Process().children(recursive=True):
        try:
            name, size_mb = _kind(process), process.memory_info().rss / 1e6
        except psutil.NoSuchProcess:
            continue
        if name is not None:
            found[name] = found.get(name, 0.0) + size_mb
    return found


def _kind(process: psutil.Process) -> str | None:
    command = process.cmdline()
    line = " ".join(command)
    if command[1:3] == ["-m", "server"]:
        return f"eyepiece {command[3]}"
    if "valkey-server" in line or "redis-server" in line:
        return "Redis"
    if "vllm.entrypoints.openai.api_server" in line:
        return "vLLM: API server"
    return "vLLM: engine" if "VLLM::" in line else None


async def _peak_while_answering(server: OwnServer, slides: Sequence[LoadSlide], clients: int) -> dict[str, float]:
    peak = memory_mb()

    async def ask(number: int) -> None:
        client = AnswerClient()
        await client.ask(api_request(server, slides[number % len(slides)], _QUESTION, max_tokens=_ANSWER_TOKENS))
        await client.close()

    asking = asyncio.gather(*map(ask, range(clients)))
    while not asking.done():
        for name, size_mb in (await asyncio.to_thread(memory_mb)).items():
            peak[name] = max(peak.get(name, 0.0), size_mb)
        await asyncio.wait([asking], timeout=0.2)
    await asking
    return peak


async def _bytes_in_redis(server: OwnServer, slide: LoadSlide) -> dict[str, int]:
    """Of an embedding and of a conversation with `TURNS` turns, as Redis counts them, keys and structures included."""
    client, conversation = AnswerClient(), None
    for _ in range(TURNS):
        request = api_request(server, slide, _QUESTION, conversation, _ANSWER_TOKENS)
        conversation = (await client.ask(request)).closing["conversation_id"]
    await client.close()
    redis = Redis.from_url(server.redis_url)
    kept = {
        "embedding": await _bytes_of(redis, f"eyepiece:{{{TENANT}}}:embeddings:{slide.id}"),
        "conversation": await _bytes_of(redis, f"eyepiece:{{{TENANT}}}:conversation:{conversation}"),
    }
    await redis.aclose()
    return kept


async def _bytes_of(redis: Redis, pattern: str) -> int:
    [key] = [key async for key in redis.scan_iter(match=pattern)]
    return int(await redis.memory_usage(key, samples=0) or 0)


def report(at_rest: dict[str, float], peak: dict[str, float], kept: dict[str, int]) -> str:
    """Two tables."""
    rows = [(name, f"{at_rest.get(name, 0.0):.0f}", f"{size_mb:.0f}") for name, size_mb in sorted(peak.items())]
    in_redis = [
        ("embedding", f"{kept['embedding'] / 1e6:.2f}"),
        (f"{TURNS} turns", f"{kept['conversation'] / 1e6:.4f}"),
    ]
    return "\n".join(
        [table(("process", "at rest MB", "at most MB"), rows), "", table(("in Redis", "MB each"), in_redis)]
    )


if __name__ == "__main__":
    main()
