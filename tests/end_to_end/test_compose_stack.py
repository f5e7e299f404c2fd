"""`make stack`: the containers of docker-compose.yml answer through HAProxy, and lose nothing when replicas go.

Takes some ten minutes on two cores; needs `make images`, and what they were built with (`ENGINE`, `BASES`).
"""

import asyncio
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from compose_stack import ComposeStack, running_stack
from haproxy_process import wait_until
from replica_stack import QUESTIONS, Load, Tally, ask_once, key_headers, wait_for_slides

from loadtests.answer_streams import StreamedAnswer
from synthetic.write_slide import write_synthetic_slide

SLIDES = 4
CLIENTS = 4
# A worker that is gone is missed after half a minute; encoding two slides takes one more.
_ENCODED_WITHIN_S = 600.0
Answers = dict[tuple[str, str], str]


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComposeStack]:
    with running_stack(tmp_path_factory.mktemp("compose")) as running:
        yield running


@pytest.fixture(scope="module")
def undisturbed(stack: ComposeStack, tmp_path_factory: pytest.TempPathFactory) -> Answers:
    """The answer to each question about each slide, asked one after the other while nothing else happens."""
    folder = tmp_path_factory.mktemp("slides")
    with stack.client() as client:
        slides = [upload(client, small_slide(folder / f"{seed}.svs", seed)) for seed in range(10, 10 + SLIDES)]
        statuses = wait_for_slides(client, slides, _ENCODED_WITHIN_S)
        assert set(statuses.values()) == {"ready"}, [client.get(f"/v1/slides/{it}").json() for it in slides]
    return {(it, question): ask(stack, it, question).text for it in slides for question in QUESTIONS}


def small_slide(path: Path, seed: int) -> Path:
    """Of the demo model's kind, and encoded in a second or two."""
    path.unlink(missing_ok=True)
    write_synthetic_slide(path, seed=seed, width_px=1536, height_px=1280)
    return path


def upload(client: httpx.Client, path: Path) -> str:
    with path.open("rb") as file:
        answer = client.post("/v1/slides", files={"file": (path.name, file)})
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def ask(stack: ComposeStack, slide: str, question: str, **options: float) -> StreamedAnswer:
    return asyncio.run(ask_once(stack.url, slide, question, headers=key_headers(stack.key), **options))


def under_load(stack: ComposeStack, expected: Answers, folder: Path, disturb: Callable[[], object]) -> Tally:
    """The tally of a load in whose middle `disturb` runs."""

    async def run() -> Tally:
        load = Load(stack.url, expected, folder, stack.key, small_slide)
        load.start(CLIENTS)
        await load.more(2 * CLIENTS)
        await asyncio.to_thread(disturb)
        await load.more(4 * CLIENTS)
        return await load.stop()

    return asyncio.run(run())


def assert_only_in_flight_failed(stack: ComposeStack, tally: Tally) -> None:
    """One exchange of each client, and the upload; every slide that was taken becomes ready."""
    assert tally.wrong == 0
    assert tally.failures <= CLIENTS + 1
    assert tally.right >= 4 * CLIENTS
    assert tally.accepted
    with stack.client() as client:
        statuses = wait_for_slides(client, tally.accepted, _ENCODED_WITHIN_S)
    assert set(statuses.values()) == {"ready"}, statuses


def test_a_slide_is_asked_about_and_the_second_answer_comes_from_the_caches(
    stack: ComposeStack, tmp_path: Path
) -> None:
    path = tmp_path / "slide.svs"
    write_synthetic_slide(path, seed=1)
    started = time.monotonic()
    with stack.client() as client:
        slide = upload(client, path)
        assert wait_for_slides(client, [slide], _ENCODED_WITHIN_S) == {slide: "ready"}
    first, second = (ask(stack, slide, "What kind of tissue is this?") for _ in range(2))

    print(f"\n  slide to first answer: {time.monotonic() - started:.0f} s; {first.text!r}")
    print(f"  cached tokens: {first.usage['cached_tokens']}, then {second.usage['cached_tokens']}")
    assert second.text == first.text
    assert second.usage["cached_tokens"] > 0
    # Sampling is other code than taking the likeliest token, and some of it wants a compiler.
    assert ask(stack, slide, "What kind of tissue is this?", temperature=0.7, seed=1).text


def test_without_the_key_nothing_is_told(stack: ComposeStack) -> None:
    assert httpx.get(f"{stack.url}/v1/slides").status_code == 401
    assert httpx.get(f"{stack.url}/metrics").status_code == 404


def test_an_api_is_killed_under_load(stack: ComposeStack, undisturbed: Answers, tmp_path: Path) -> None:
    victim = stack.containers("api")[0]
    tally = under_load(stack, undisturbed, tmp_path, lambda: stack.kill(victim))

    print(f"\n  API killed: {tally}")
    assert_only_in_flight_failed(stack, tally)
    stack.start(victim)


def test_a_vllm_is_killed_under_load(stack: ComposeStack, undisturbed: Answers, tmp_path: Path) -> None:
    victim = stack.containers("vllm")[0]
    tally = under_load(stack, undisturbed, tmp_path, lambda: stack.kill(victim))

    print(f"\n  vLLM killed: {tally}")
    assert_only_in_flight_failed(stack, tally)
    for (slide, question), answer in undisturbed.items():  # those of the one that is gone, at the other one
        assert ask(stack, slide, question).text == answer
    stack.start(victim)


def test_a_worker_is_killed_in_the_middle_of_slides(stack: ComposeStack, undisturbed: Answers, tmp_path: Path) -> None:
    victim = stack.containers("worker")[0]
    paths = [tmp_path / f"{seed}.svs" for seed in range(2, 4)]
    for seed, path in enumerate(paths, 2):
        write_synthetic_slide(path, seed=seed)
    taken: list[str] = []

    def disturb() -> None:
        with stack.client() as client:
            taken.extend(upload(client, path) for path in paths)
            wait_until(lambda: all(client.get(f"/v1/slides/{it}").json()["status"] == "encoding" for it in taken))
            stack.kill(victim)
            statuses = wait_for_slides(client, taken, _ENCODED_WITHIN_S)
        assert set(statuses.values()) == {"ready"}, statuses

    tally = under_load(stack, undisturbed, tmp_path, disturb)

    print(f"\n  worker killed: {tally}")
    assert not tally.failed, stack.ends_of_logs("api", "haproxy")
    assert_only_in_flight_failed(stack, tally)
    stack.start(victim)


@pytest.mark.parametrize("service", ["api", "worker"])
def test_who_is_asked_to_leave_ends_with_0(stack: ComposeStack, service: str) -> None:
    victim = stack.containers(service)[1]

    assert stack.stop(victim) == 0, stack.end_of_log(victim)
    stack.start(victim)
