"""Precomputed features through a running server: what was downloaded of one slide answers as that slide does."""

import hashlib
import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from running_server import RunningServer, ask, upload, wait_for_outcome

from encoders.embedding_file import from_bytes
from model_store.manifest import packaged_manifest

pytestmark = pytest.mark.vllm
QUESTION = "What tissue is this, and is there necrosis?"


@pytest.fixture
def downloaded(client: httpx.Client, slide: dict[str, Any], tmp_path: Path) -> Path:
    path = tmp_path / "features.h5"
    path.write_bytes(client.get(f"/v1/slides/{slide['id']}/features").content)
    return path


def attach(client: httpx.Client, slide_id: str, content: bytes) -> dict[str, Any]:
    answer = client.put(f"/v1/slides/{slide_id}/features", files={"file": ("features", content)})
    assert answer.status_code in (200, 202), answer.text
    wait_for_outcome(client, slide_id)
    attached: dict[str, Any] = client.get(f"/v1/slides/{slide_id}").json()
    return attached


def stored_tokens(server: RunningServer, slide: dict[str, Any]) -> Any:
    folder = server.data_dir / "store/tenants/default/slides" / slide["id"] / "embeddings"
    return from_bytes((folder / f"{slide['encoder_id']}.safetensors").read_bytes()).tensors["slide_tokens"]


def test_downloaded_features_uploaded_as_a_slide_give_the_same_answer(
    server: RunningServer, client: httpx.Client, slide: dict[str, Any], downloaded: Path
) -> None:
    tiles = server.worker_metric("eyepiece_tiles_encoded_total")
    expected = ask(client, slide["id"], QUESTION, temperature=0, max_tokens=24)

    given = upload(client, downloaded)

    assert (given["status"], given["vendor"]) == ("ready", "features")
    assert given["id"] == hashlib.sha256(downloaded.read_bytes()).hexdigest() != slide["id"]
    for name in ("width", "height", "mpp", "objective_power", "tile_count", "encoder_id"):
        assert given[name] == slide[name]
    assert server.worker_metric("eyepiece_tiles_encoded_total") == tiles
    answer = ask(client, given["id"], QUESTION, temperature=0, max_tokens=24)
    assert answer["answer"] == expected["answer"]
    assert answer["usage"]["slide_tokens"] == expected["usage"]["slide_tokens"]
    assert client.get(f"/v1/slides/{given['id']}/thumbnail").status_code == 404


def test_slide_features_attached_to_a_slide_answer_as_it_does_and_go_away_again(
    server: RunningServer, client: httpx.Client, slide: dict[str, Any]
) -> None:
    expected = ask(client, slide["id"], QUESTION, temperature=0, max_tokens=24)
    # As the published features come: a leading axis, and zeros up to the projector's width.
    tokens = torch.from_numpy(stored_tokens(server, slide))[None]
    buffer = io.BytesIO()
    torch.save(
        torch.nn.functional.pad(tokens, (0, packaged_manifest("demo").projector.width - tokens.shape[-1])), buffer
    )

    attached = attach(client, slide["id"], buffer.getvalue())

    assert (attached["status"], attached["tile_count"]) == ("ready", None)
    assert attached["encoder_id"] != slide["encoder_id"]
    assert ask(client, slide["id"], QUESTION, temperature=0, max_tokens=24)["answer"] == expected["answer"]
    back = client.post(f"/v1/slides/{slide['id']}/encode", json={"source": "pixels"}).json()
    assert (back["status"], back["encoder_id"]) == ("ready", slide["encoder_id"])


def test_a_pickled_command_fails_the_slide_and_is_not_run(client: httpx.Client, tmp_path: Path) -> None:
    script = "import os, sys, torch; C = type('C', (), {'__reduce__': lambda s: (os.system, (sys.argv[1],))}); "
    command = f"touch {tmp_path / 'was-run'}"
    subprocess.run(
        [sys.executable, "-c", script + "torch.save(C(), sys.argv[2])", command, tmp_path / "bad.pt"], check=True
    )

    failed = upload(client, tmp_path / "bad.pt")

    assert (failed["status"], failed["error"]["code"]) == ("failed", "unusable_features")
    assert "pickled objects" in failed["error"]["detail"]
    assert not (tmp_path / "was-run").exists()
    # The worker lives and takes the next slide; this one is uploaded as often as anybody likes.
    assert upload(client, tmp_path / "bad.pt")["status"] == "failed"
