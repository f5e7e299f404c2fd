"""A slide is encoded once: what follows is answered from Redis, and without Redis from the slide store."""

from typing import Any

import httpx
import pytest
import redis
from running_server import RunningServer, ask, upload

pytestmark = pytest.mark.vllm
READS = "eyepiece_embedding_cache_reads_total"


def test_the_second_question_encodes_nothing_and_meets_a_warm_prefix(
    server: RunningServer, client: httpx.Client, slide: dict[str, Any]
) -> None:
    tiles = server.worker_metric("eyepiece_tiles_encoded_total")
    enqueued = server.api_metric('eyepiece_encode_jobs_enqueued_total{model="demo"}')
    first = ask(client, slide["id"], "Is there necrosis in this slide?")

    second = ask(client, slide["id"], "And how would you grade it?", conversation_id=first["conversation_id"])

    assert tiles > 0
    assert server.worker_metric("eyepiece_tiles_encoded_total") == tiles
    assert server.api_metric('eyepiece_encode_jobs_enqueued_total{model="demo"}') == enqueued
    assert second["usage"]["cached_tokens"] > 0
    # Reported, not asserted: time is no pass condition on a shared machine.
    print(first["timing"], second["timing"])


def test_after_a_flush_of_redis_the_answer_comes_from_the_store_without_encoding(
    server: RunningServer, client: httpx.Client, slide: dict[str, Any]
) -> None:
    before = ask(client, slide["id"], "What tissue is this?", temperature=0)
    tiles = server.worker_metric("eyepiece_tiles_encoded_total")
    from_store = server.api_metric(f'{READS}{{tier="store"}}')
    redis.Redis.from_url(server.environment_of("EYEPIECE_REDIS_URL")).flushall()

    # The first from the API's memory, which then hears that Redis has nothing.
    after = [ask(client, slide["id"], "What tissue is this?", temperature=0)["answer"] for _ in range(2)]

    assert after == [before["answer"]] * 2
    assert server.api_metric(f'{READS}{{tier="store"}}') == from_store + 1
    assert server.worker_metric("eyepiece_tiles_encoded_total") == tiles


def test_the_same_content_again_is_the_same_slide(
    client: httpx.Client, slide: dict[str, Any], sample_path: Any
) -> None:
    with sample_path.open("rb") as file:
        answer = client.post("/v1/slides", files={"file": ("another-name.svs", file)})

    assert answer.status_code == 200
    assert answer.json() == slide


def test_a_deleted_slide_can_be_uploaded_again(server: RunningServer, client: httpx.Client, tmp_path: Any) -> None:
    from synthetic.write_slide import write_sample_slide

    path = tmp_path / "short-lived.tiff"
    write_sample_slide(path, seed=11, width_px=1024, height_px=768)
    first = upload(client, path)

    assert client.delete(f"/v1/slides/{first['id']}").status_code == 204
    assert client.get(f"/v1/slides/{first['id']}").status_code == 404
    folder = server.data_dir / "store/tenants/default/slides" / first["id"]
    assert not folder.exists()
    again = upload(client, path)

    assert again["status"] == "ready"
    assert again["encoder_id"] == first["encoder_id"]
