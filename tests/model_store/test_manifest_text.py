"""A manifest that is written reads back as itself."""

import pytest

from model_store.manifest import Manifest, packaged_manifest, packaged_names, parse_manifest
from model_store.manifest_text import manifest_text


def recorded(manifest: Manifest) -> Manifest:
    assert manifest.downloads is not None
    llm = manifest.downloads["llm"].model_copy(
        update={
            "digests": "recorded",
            "revision": "a" * 40,
            "sha256": {"model-1.bin": "b" * 64, 'odd "name".json': "c" * 64},
        }
    )
    return manifest.model_copy(update={"downloads": {**manifest.downloads, "llm": llm}})


@pytest.mark.parametrize("name", packaged_names())
def test_every_packaged_manifest_survives(name: str) -> None:
    assert parse_manifest(manifest_text(packaged_manifest(name))) == packaged_manifest(name)


def test_what_was_recorded_survives() -> None:
    manifest = recorded(packaged_manifest("wsi-llava"))

    assert parse_manifest(manifest_text(manifest)) == manifest
