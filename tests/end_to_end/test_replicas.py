"""Two APIs, two workers, two vLLMs behind the real HAProxy: one of each is killed and drained under load.

Nothing is lost and nothing is wrong; what fails is what was in flight on the process that was killed, by HAProxy's own
count. The counts are printed (`pytest -s`).
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import httpx
import pytest
from haproxy_process import needs_haproxy, wait_until
from replica_stack import (
    QUESTIONS,
    Load,
    Replica,
    ReplicaStack,
    Tally,
    ask_once,
    feature_slide,
    running_replicas,
    wait_for_slides,
)

from encoders.embedding_file import from_bytes
from synthetic.write_slide import write_sample_slide

pytestmark = [pytest.mark.vllm, needs_haproxy]
SLIDES = 8
CLIENTS = 6
STREAMS = 16
Answers = dict[tuple[str, str], str]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ReplicaStack]:
    with running_replicas(tmp_path_factory.mktemp("replicas")) as stack:
        yield stack


@pytest.fixture
def stack(running: ReplicaStack) -> ReplicaStack:
    """Whole again, whatever the test before killed."""
    running.become_whole()
    return running


@pytest.fixture(scope="module")
def slides(running: ReplicaStack, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Encoded slides."""
    folder = tmp_path_factory.mktemp("features")
    with running.client() as client:
        paths = [feature_slide(folder / f"{seed}.h5", seed) for seed in range(SLIDES)]
        ids = [upload(client, path) for path in paths]
        assert set(wait_for_slides(client, ids).values()) == {"ready"}
    return ids


@pytest.fixture(scope="module")
def undisturbed(running: ReplicaStack, slides: list[str]) -> Answers:
    """The answer to each question about each slide, asked one after the other while nothing else happens."""

    async def ask_all() -> Answers:
        url = running.haproxy.clients_url
        return {(it, question): (await ask_once(url, it, question)).text for it in slides for question in QUESTIONS}

    answers = asyncio.run(ask_all())
    assert len(set(answers.values())) > SLIDES  # they depend on slide and question, or comparing them says nothing
    return answers


def upload(client: httpx.Client, path: Path) -> str:
    with path.open("rb") as file:
        answer = client.post("/v1/slides", files={"file": (path.name, file)})
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


async def under_load(
    stack: ReplicaStack,
    expected: Answers,
    folder: Path,
    disturb: Callable[[], Awaitable[object]],
    clients: int = CLIENTS,
) -> tuple[Tally, int]:
    """The tally of a load in whose middle `disturb` runs, and where HAProxy's log stood before."""
    since = len(stack.proxied())
    load = Load(stack.haproxy.clients_url, expected, folder)
    load.start(clients)
    await load.more(2 * CLIENTS)
    await disturb()
    await load.more(3 * CLIENTS)
    return await load.stop(), since


async def until(happened: Callable[[], bool]) -> None:
    await asyncio.to_thread(wait_until, happened)


def assert_nothing_lost(stack: ReplicaStack, tally: Tally) -> None:
    assert tally.wrong == 0
    assert tally.right > 4 * CLIENTS
    with stack.client() as client:
        statuses = wait_for_slides(client, tally.accepted)
    assert tally.accepted
    assert set(statuses.values()) == {"ready"}, statuses


def assert_only_in_flight_failed(stack: ReplicaStack, tally: Tally, backend: str, victim: Replica, since: int) -> None:
    """HAProxy logs an exchange when it is over; those that the victim broke off are over at once."""
    broken = stack.broken(backend, since)
    print(f"  broken off, by HAProxy's log: {dict(broken)}")
    assert set(broken) <= {victim.name}
    assert tally.failures <= broken[victim.name] <= CLIENTS + 1  # one exchange a client, and the upload


async def test_a_follow_up_goes_to_the_replica_whose_prefix_is_warm(stack: ReplicaStack, slides: list[str]) -> None:
    url, since = stack.haproxy.clients_url, len(stack.proxied())
    hits = [llm.sample("vllm:prefix_cache_hits_total") for llm in stack.llms]
    cached = []
    for slide in slides:
        first = await ask_once(url, slide, QUESTIONS[0])
        follow_up = await ask_once(url, slide, QUESTIONS[1], conversation_id=first.closing["conversation_id"])
        cached.append(follow_up.usage["cached_tokens"])

    gained = [llm.sample("vllm:prefix_cache_hits_total") - before for llm, before in zip(stack.llms, hits, strict=True)]
    asked = [server for server in stack.servers_asked(since)]
    print(f"\n  tokens of follow-ups from the prefix cache: {cached}; hits per replica: {gained}; asked: {asked}")
    assert min(cached) > 0
    assert min(gained) > 0
    assert asked[::2] == asked[1::2]  # first question and follow-up of each slide
    assert set(asked) == {llm.name for llm in stack.llms}


async def test_sigterm_breaks_none_of_sixteen_streams(stack: ReplicaStack, slides: list[str]) -> None:
    api, begun, ended = stack.apis[0], asyncio.Semaphore(0), 0

    async def stream(number: int) -> str:
        nonlocal ended
        slide = slides[number % SLIDES]
        answer = await ask_once(api.url, slide, QUESTIONS[0], max_tokens=600, on_first_text=begun.release)
        ended += 1
        return answer.text

    asking = [asyncio.create_task(stream(number)) for number in range(STREAMS)]
    for _ in range(STREAMS):
        await begun.acquire()
    leaving = asyncio.create_task(api.leave())
    await until(lambda: httpx.get(f"{api.url}/v1/slides").status_code == 503)
    ended_before = ended
    outcomes = await asyncio.gather(*asking, return_exceptions=True)
    seconds = await leaving

    broken = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
    print(f"\n  {STREAMS - ended_before} streams when it refused, {len(broken)} broken; gone after {seconds:.1f} s")
    assert ended_before < STREAMS
    assert broken == []
    assert outcomes[:SLIDES] == outcomes[SLIDES:]  # the same questions about the same slides
    assert api.exit_code == 0  # it did what it was asked to


async def test_an_api_is_drained_under_load(stack: ReplicaStack, undisturbed: Answers, tmp_path: Path) -> None:
    tally, since = await under_load(stack, undisturbed, tmp_path, stack.apis[0].leave)

    print(f"\n  API drained: {tally}")
    assert not tally.failed
    assert not stack.broken("api", since)
    assert_nothing_lost(stack, tally)


async def test_an_api_is_killed_under_load(stack: ReplicaStack, undisturbed: Answers, tmp_path: Path) -> None:
    tally, since = await under_load(stack, undisturbed, tmp_path, stack.apis[1].die)

    print(f"\n  API killed: {tally}")
    assert_only_in_flight_failed(stack, tally, "api", stack.apis[1], since)
    assert_nothing_lost(stack, tally)


async def test_a_vllm_is_drained_under_load(stack: ReplicaStack, undisturbed: Answers, tmp_path: Path) -> None:
    """As docs/operations.md says: HAProxy first, then wait, then SIGTERM."""
    drained = stack.llms[0]

    async def drain() -> None:
        stack.haproxy.say(f"set server llm/{drained.name} state drain")
        await until(lambda: stack.sessions("llm", drained.name) == 0)
        await drained.leave()

    tally, since = await under_load(stack, undisturbed, tmp_path, drain)
    stack.haproxy.say(f"set server llm/{drained.name} state ready")
    drained.start()  # it takes longest to come back

    print(f"\n  vLLM drained: {tally}")
    assert not tally.failed
    assert not stack.broken("llm", since)
    assert_nothing_lost(stack, tally)


async def test_workers_are_killed_and_drained_in_the_middle_of_slides(
    running: ReplicaStack, undisturbed: Answers, tmp_path: Path
) -> None:
    stack, (killed, drained) = running, running.workers
    paths = [tmp_path / f"{seed}.tiff" for seed in range(3)]
    for seed, path in enumerate(paths):
        write_sample_slide(path, seed=seed, width_px=2240, height_px=1792)
    taken: list[str] = []

    async def disturb() -> None:
        with stack.client() as client:
            taken.extend([await asyncio.to_thread(upload, client, path) for path in paths])
            await until(killed.is_encoding)
            await killed.die()
            killed.start()
            await until(drained.is_encoding)
            await drained.leave()
            drained.start()
            await asyncio.to_thread(wait_for_slides, client, taken)

    tally, _ = await under_load(stack, undisturbed, tmp_path, disturb, clients=1)  # the workers need the cores

    print(f"\n  workers killed and drained: {tally}; {len(taken)} slides in their hands")
    assert not tally.failed
    assert_nothing_lost(stack, tally)
    await assert_as_encoded_undisturbed(stack, dict(zip(taken, paths, strict=True)))


async def assert_as_encoded_undisturbed(stack: ReplicaStack, slides: dict[str, Path]) -> None:
    """Each slide has one embedding, equal to the one of a second, undisturbed encode, and so are the answers."""
    before = {it: (embedding(stack, it), await answer_about(stack, it)) for it in slides}
    with stack.client() as client:
        for it in slides:
            assert client.delete(f"/v1/slides/{it}").status_code == 204
        again = [await asyncio.to_thread(upload, client, path) for path in slides.values()]
        statuses = await asyncio.to_thread(wait_for_slides, client, again)
    assert set(statuses.values()) == {"ready"}
    after = {it: (embedding(stack, it), await answer_about(stack, it)) for it in slides}
    assert before == after


def embedding(stack: ReplicaStack, slide_id: str) -> bytes:
    (path,) = (stack.store / slide_id / "embeddings").iterdir()
    return from_bytes(path.read_bytes()).tensors["slide_tokens"].tobytes()


async def answer_about(stack: ReplicaStack, slide_id: str) -> str:
    return (await ask_once(stack.haproxy.clients_url, slide_id, QUESTIONS[0])).text


async def test_a_vllm_is_killed_under_load(stack: ReplicaStack, undisturbed: Answers, tmp_path: Path) -> None:
    killed = stack.llms[1]
    started = time.monotonic()
    tally, since = await under_load(stack, undisturbed, tmp_path, killed.die)

    print(f"\n  vLLM killed: {tally}; {time.monotonic() - started:.1f} s of load")
    assert_only_in_flight_failed(stack, tally, "llm", killed, since)
    assert_nothing_lost(stack, tally)
    for slide, question in undisturbed:  # the slides of the one that is gone, at the other one
        assert (await ask_once(stack.haproxy.clients_url, slide, question)).text == undisturbed[slide, question]
