"""Checkpoints that LLaVA's own code made, served: its recorded greedy answers come back through our HTTP API.

The suite serves one layout; that the others get the weights which the reference gives them is held to the last bit in
tests/model_store/test_reference_checkpoints.py. `make vllm-variants` serves each.
"""

from pathlib import Path
from typing import Any

import httpx
import pytest
from long_tests import all_or
from reference_checkpoints import BASES, REFERENCE, RecordedAnswer, convert_reference, recorded_answers
from running_server import ask, running_server, upload, wait_for_outcome
from toy_checkpoint import toy_manifest

pytestmark = pytest.mark.vllm
MAX_TOKENS = 16


def attach(client: httpx.Client, slide_id: str, features: Path) -> None:
    """Gives the slide the very tokens that the reference was asked about."""
    with features.open("rb") as file:
        answer = client.put(f"/v1/slides/{slide_id}/features", files={"file": (features.name, file)})
    assert answer.status_code in (200, 202), answer.text
    assert wait_for_outcome(client, slide_id) == "ready"


def assert_same(done: dict[str, Any], expected: RecordedAnswer, slide_tokens: int) -> None:
    """Text and both counts; the API has no token ids, and the reference strips its text."""
    assert done["answer"].strip() == expected.text
    assert done["usage"]["completion_tokens"] == len(expected.token_ids)
    assert done["usage"]["prompt_tokens"] == len(expected.prompt_ids) - 1 + slide_tokens


@pytest.mark.parametrize("layout", all_or(["lora"], BASES))
def test_a_checkpoint_made_by_the_reference_answers_as_the_reference(
    layout: str, tmp_path: Path, sample_path: Path
) -> None:
    manifest, data_dir = toy_manifest(), tmp_path / "data"
    convert_reference(layout, manifest, tmp_path / "downloads", data_dir / "models")

    with running_server(data_dir, tmp_path / "up.log", "toy") as server, server.client() as client:
        slide_id = upload(client, sample_path)["id"]
        attached = ""
        for expected in recorded_answers(layout):
            if expected.slide != attached:
                attach(client, slide_id, REFERENCE / expected.slide)
                attached = expected.slide
            done = ask(client, slide_id, expected.question, temperature=0, max_tokens=MAX_TOKENS)

            assert_same(done, expected, manifest.slide_stage.slide_tokens)
