"""One real Redis-compatible server a session, emptied for every test; the API's parts on top of it."""

import dataclasses
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from pathlib import Path

import httpx
import pytest
import structlog
from api_parts import client_of
from fakes import FakeVllm
from fastapi import FastAPI
from pydantic import SecretStr
from redis.asyncio import Redis

from model_store.installed import InstalledModel
from server.api.parts import Parts
from server.app import build_app, build_readiness
from server.asking.language_model import LanguageModel
from server.asking.served_models import ServedModels
from server.machine.redis_server import answers, find_servers, free_loopback_port, prepare_redis
from server.settings import Settings
from server.storage.redis_client import connect_redis


def pytest_configure(config: pytest.Config) -> None:
    """SAQ uses SETEX, which redis-py would rather see as SET.

    A traceback without the values of its variables: showing them takes seconds, and the server never does.
    """
    config.addinivalue_line("filterwarnings", "ignore:Call to deprecated setex:DeprecationWarning")
    structlog.dev.ConsoleRenderer.get_active().exception_formatter = structlog.dev.plain_traceback


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server of this session's own."""
    programs = find_servers()
    if not programs:
        pytest.skip("there is no Redis-compatible server on this machine")
    launch = prepare_redis(programs[0], tmp_path_factory.mktemp("redis"), max_memory_mb=64)
    process = subprocess.Popen(launch.command, stdout=subprocess.DEVNULL)
    try:
        while not answers(launch.url):
            assert process.poll() is None, "the Redis server did not start"
            time.sleep(0.02)
        yield launch.url
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture
def settings(tmp_path: Path, redis_url: str) -> Settings:
    """Settings with short times; whatever the environment says is overridden where it matters."""
    return Settings(
        host="127.0.0.1",
        require_key=False,
        data_dir=tmp_path,
        store_url="",
        redis_url=SecretStr(redis_url),
        llm_api_key=SecretStr("a secret"),
        disk_reserve_bytes=0,
        job_heartbeat_s=1,
        job_sweep_s=1,
    )


@pytest.fixture
def settings_without_redis(settings: Settings) -> Settings:
    """The same, but nobody listens where Redis should be."""
    url = SecretStr(f"redis://127.0.0.1:{free_loopback_port()}/0")
    return settings.model_copy(update={"redis_url": url})


@pytest.fixture
async def redis(settings: Settings) -> AsyncIterator[Redis]:
    """A client to an empty database."""
    client = connect_redis(settings)
    await client.flushall()
    yield client
    await client.aclose()


@pytest.fixture(scope="session")
def demo_model(tmp_path_factory: pytest.TempPathFactory) -> InstalledModel:
    """An untrained model under the demo's name."""
    from untrained_model import untrained_model

    return untrained_model(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="session")
def sample_slide(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A small Aperio-style slide."""
    from synthetic.write_slide import write_sample_slide

    path = tmp_path_factory.mktemp("slides") / "sample.svs"
    write_sample_slide(path, seed=1, width_px=1024, height_px=768)
    return path.read_bytes()


@pytest.fixture
def vllm() -> FakeVllm:
    """The vLLM server of `app`."""
    return FakeVllm()


@pytest.fixture
async def make_app(
    settings: Settings, demo_model: InstalledModel, vllm: FakeVllm, redis: Redis
) -> AsyncIterator[Callable[..., FastAPI]]:
    """Makes the API with changed settings; its background loops do not run."""
    apps: list[FastAPI] = []

    def make(
        base: Settings = settings,
        *,
        models: Sequence[InstalledModel] = (demo_model,),
        vllms: Mapping[str, FakeVllm] | None = None,
        **changes: object,
    ) -> FastAPI:
        app = build_app(base.model_copy(update=changes), models)
        built: Parts = app.state.parts
        app.state.unused = built.models
        app.state.parts = dataclasses.replace(
            built, models=with_vllms(built.models, vllms or {models[0].manifest.name: vllm})
        )
        app.state.readiness = build_readiness(app.state.parts)
        apps.append(app)
        return app

    yield make
    for app in apps:
        for model in (*app.state.unused, *app.state.parts.models):
            await model.language_model.aclose()
        await app.state.parts.open_slides.aclose()
        await app.state.parts.redis.aclose()


def with_vllms(models: ServedModels, vllms: Mapping[str, FakeVllm]) -> ServedModels:
    """The models behind fake vLLM servers, by the model's name."""
    served = []
    for model in models:
        name = model.manifest.llm.served_name
        spoken_to = LanguageModel(vllms[model.name].client(), name, model.slide_inputs, retry_waits_s=())
        served.append(dataclasses.replace(model, language_model=spoken_to))
    return ServedModels(served)


@pytest.fixture
def app(make_app: Callable[..., FastAPI]) -> FastAPI:
    """The API over a real Redis, a local store and a fake vLLM."""
    return make_app()


@pytest.fixture
def parts(app: FastAPI) -> Parts:
    """The parts of `app`."""
    parts: Parts = app.state.parts
    return parts


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """A client of `app` on the same machine, without a key."""
    async with client_of(app) as client:
        yield client
