"""Every file of the shared slides gets what their index says, and the service stays ready."""

import hashlib
from pathlib import Path

import httpx
import pytest
from running_server import RunningServer, ask, upload, wait_for_outcome

pytestmark = pytest.mark.vllm

REFUSED = {
    "histolab_broken.svs": (415, "unsupported_format"),
    "clam_CLAM1.tiff": (415, "unsupported_format"),
    "truncated.svs": (422, "unreadable_slide"),
    "ospy_unopenable.tiff": (415, "unsupported_format"),
}
FAILED = {
    "tcga-cr-7395-ts1.svs": "missing_mpp",
    "ospy_boxes.tiff": "missing_mpp",
    "largeimage_test_orient3.tif": "missing_mpp",
    "ospy_small.svs": "no_tissue",
    "highdicom_sm_image.dcm": "no_tissue",
    "ospy_unreadable.svs": "unreadable_slide",
    "made_corrupt_zeros_tail.svs": "unreadable_slide",
    "ezwsi_multiframe_camelyon.dcm": "resolution_too_low",
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_a_slide_is_refused_and_not_kept(client: httpx.Client, shared_slides: Path, name: str) -> None:
    before = client.get("/v1/slides", params={"limit": 100}).json()["data"]

    with (shared_slides / name).open("rb") as file:
        answer = client.post("/v1/slides", files={"file": (name, file)})

    status, code = REFUSED[name]
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert client.get("/v1/slides", params={"limit": 100}).json()["data"] == before
    assert client.get("/readyz").status_code == 200


@pytest.mark.parametrize("name", FAILED)
def test_what_cannot_be_encoded_is_kept_and_says_why(client: httpx.Client, shared_slides: Path, name: str) -> None:
    slide = upload(client, shared_slides / name)

    assert slide["status"] == "failed"
    assert slide["error"]["code"] == FAILED[name]
    question = client.post(f"/v1/slides/{slide['id']}/questions", json={"question": "What is it?"})
    assert (question.status_code, question.json()["code"]) == (409, "slide_failed")
    assert client.get("/readyz").status_code == 200


def test_a_damaged_tile_is_named_by_its_rectangle(client: httpx.Client, shared_slides: Path) -> None:
    slide = upload(client, shared_slides / "made_corrupt_zeros_tail.svs")

    assert "level-0 rectangle (767, 1022) – (1023, 1278)" in slide["error"]["detail"]


def test_the_reference_slide_is_encoded_and_answered(client: httpx.Client, shared_slides: Path) -> None:
    slide = upload(client, shared_slides / "cmu-1-small-region.svs")

    assert slide["status"] == "ready"
    assert (slide["width"], slide["height"], slide["mpp"], slide["vendor"]) == (2220, 2967, 0.499, "aperio")
    assert slide["tile_count"] > 0
    done = ask(client, slide["id"], "What tissue is this?")
    assert done["answer"].strip()
    assert done["usage"]["slide_tokens"] == 32
    assert "not a diagnosis" in done["notice"]
    assert "synthetic tissue" in done["notice"]
    thumbnail = client.get(f"/v1/slides/{slide['id']}/thumbnail")
    assert thumbnail.content.startswith(b"\xff\xd8")


def test_a_slide_without_resolution_is_encoded_once_it_is_given(
    server: RunningServer, client: httpx.Client, shared_slides: Path
) -> None:
    slide = upload(client, shared_slides / "tcga-cr-7395-ts1.svs")
    path = f"/v1/slides/{slide['id']}"

    absurd = client.post(f"{path}/encode", json={"mpp": 352.8})
    accepted = client.post(f"{path}/encode", json={"mpp": 0.5, "priority": "urgent"})
    assert wait_for_outcome(client, slide["id"]) == "ready"
    ready = client.get(path).json()

    assert absurd.status_code == 422
    assert accepted.status_code == 202
    assert (ready["status"], ready["mpp"], ready["error"]) == ("ready", 0.5, None)
    assert ready["encoder_id"] != slide["encoder_id"], "an override is part of what the embedding depends on"
    assert ask(client, slide["id"], "What tissue is this?")["answer"]


def test_a_slide_of_several_files_is_one_slide(client: httpx.Client, shared_slides: Path) -> None:
    paths = sorted((shared_slides / "ospy_boxes_dicom").iterdir(), reverse=True)
    files = [("file", (path.name, path.read_bytes())) for path in paths]

    answer = client.post("/v1/slides", files=files)
    again = client.post("/v1/slides", files=list(reversed(files)))

    assert (answer.status_code, again.status_code) == (202, 200)
    assert wait_for_outcome(client, answer.json()["id"]) == "failed"
    slide = client.get(f"/v1/slides/{answer.json()['id']}").json()
    rows = [(path.name, path.stat().st_size, hashlib.sha256(path.read_bytes()).hexdigest()) for path in sorted(paths)]
    manifest = "".join(f"{name}\t{size}\t{digest}\n" for name, size, digest in rows)
    assert slide["id"] == hashlib.sha256(manifest.encode()).hexdigest()
    assert (slide["vendor"], slide["width"], slide["height"]) == ("dicom", 16, 16)
    assert slide["size_bytes"] == sum(size for _, size, _ in rows)
    assert slide["error"]["code"] == "no_tissue", "16 px are less than one tile"
    assert client.get(f"/v1/slides/{slide['id']}/thumbnail").content.startswith(b"\xff\xd8")
