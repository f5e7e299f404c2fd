"""Fetching: from a hub on this machine, or from a folder; what is complete is kept, what is refused is explained."""

import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from packed_checkpoints import language_model_of, packed_model, write_beside
from toy_checkpoint import Toy, toy_manifest

from encoders.expected_shapes import expected_shapes
from model_store.convert.convert_model import convert_model
from model_store.errors import ModelError
from model_store.fetch.fetch_model import fetch_model
from model_store.fetch.from_hub import HubOrigin
from model_store.fetch.from_store import StoreOrigin
from model_store.manifest import Download, Manifest, Part, packaged_manifest

COMMIT = "c" * 40


class Hub(ThreadingHTTPServer):
    """As much of the public hub as a download asks for: a repository's files at one commit, and gated ones."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), HubHandler)
        self.files: dict[str, dict[str, bytes]] = {}
        self.gated: set[str] = set()
        self.bodies_sent: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class HubHandler(BaseHTTPRequestHandler):
    server: Hub

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        parts = self.path.split("?")[0].strip("/").split("/")
        if parts[:2] == ["api", "models"]:
            return self._describe("/".join(parts[2:4]), is_tree=parts[4:5] == ["tree"])
        return self._file("/".join(parts[:2]), "/".join(parts[4:]))

    def log_message(self, format: str, *args: Any) -> None:
        """Not on the terminal of the tests."""

    def _describe(self, repository: str, is_tree: bool) -> None:
        if repository not in self.server.files:
            return self._answer(404, b"{}", {"X-Error-Code": "RepoNotFound"})
        files = self.server.files[repository]
        if is_tree:
            tree = [
                {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
                for name, data in files.items()
            ]
            return self._answer(200, json.dumps(tree).encode())
        siblings = [{"rfilename": name} for name in files]
        return self._answer(200, json.dumps({"id": repository, "sha": COMMIT, "siblings": siblings}).encode())

    def _file(self, repository: str, name: str) -> None:
        if repository in self.server.gated:
            return self._answer(403, b"gated", {"X-Error-Code": "GatedRepo"})
        data = self.server.files[repository][name]
        if self.command == "GET":
            self.server.bodies_sent.append(name)
        etag = hashlib.sha256(data).hexdigest()
        return self._answer(200, data, {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT})

    def _answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)


@pytest.fixture
def toy(tmp_path: Path) -> Toy:
    toy = Toy(tmp_path / "published", toy_manifest())
    toy.write_encoders()
    toy.write_merged()
    return toy


@pytest.fixture
def hub(toy: Toy) -> Iterator[Hub]:
    """A hub that has the toy's parts under the repositories of its manifest."""
    server = Hub()
    assert toy.manifest.downloads is not None
    for part, download in toy.manifest.downloads.items():
        files = server.files.setdefault(download.repository, {"README.md": b"not wanted"})
        if (toy.folder / part).is_dir():
            files |= {path.name: path.read_bytes() for path in (toy.folder / part).iterdir()}
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def fetch_from(hub: Hub, manifest: Manifest, folder: Path) -> list[str]:
    said: list[str] = []
    fetch_model(manifest, folder, HubOrigin(said.append, hub.url), said.append)
    return said


def test_what_the_hub_gave_converts_and_its_revision_is_recorded(hub: Hub, toy: Toy, tmp_path: Path) -> None:
    said = fetch_from(hub, toy.manifest, tmp_path / "downloads")

    assert "llm_base: not needed, the checkpoint is merged" in said
    assert not (tmp_path / "downloads/llm_base").exists()
    assert not list((tmp_path / "downloads").rglob("README.md"))
    assert f"llm: revision {COMMIT}, the newest; none was known beforehand" in said
    shapes = expected_shapes(toy.manifest)
    model = convert_model(toy.manifest, tmp_path / "downloads", tmp_path / "models", shapes, said.append)
    assert model.manifest.downloads is not None
    assert {model.manifest.downloads["llm"].revision, model.manifest.downloads["tile_encoder"].revision} == {COMMIT}


def test_what_is_complete_is_not_fetched_again(hub: Hub, toy: Toy, tmp_path: Path) -> None:
    fetch_from(hub, toy.manifest, tmp_path / "downloads")
    hub.bodies_sent.clear()

    fetch_from(hub, toy.manifest, tmp_path / "downloads")

    assert hub.bodies_sent == []


def test_a_gated_repository_says_what_to_do(hub: Hub, toy: Toy, tmp_path: Path) -> None:
    hub.gated = set(hub.files)

    with pytest.raises(ModelError, match=r"prov-gigapath is gated: accept its terms .* set HF_TOKEN"):
        fetch_from(hub, toy.manifest, tmp_path / "downloads")


def test_an_unknown_repository_and_a_dead_hub_are_explained(hub: Hub, toy: Toy, tmp_path: Path) -> None:
    hub.files.clear()
    with pytest.raises(ModelError, match="The hub has no prov-gigapath/prov-gigapath"):
        fetch_from(hub, toy.manifest, tmp_path / "downloads")

    hub.server_close()
    hub.shutdown()
    with pytest.raises(ModelError, match=r"could not be fetched .*--from"):
        fetch_from(hub, toy.manifest, tmp_path / "downloads")


def test_a_folder_serves_where_there_is_no_internet(toy: Toy, tmp_path: Path) -> None:
    (toy.folder / "llm/REVISION").write_text(f"{COMMIT}\n")
    (toy.folder / "llm/notes.txt").write_text("not wanted")

    fetch_model(toy.manifest, tmp_path / "downloads", StoreOrigin(str(toy.folder)), lambda line: None)

    shapes = expected_shapes(toy.manifest)
    model = convert_model(toy.manifest, tmp_path / "downloads", tmp_path / "models", shapes, lambda line: None)
    assert model.manifest.downloads is not None
    assert model.manifest.downloads["llm"].revision == COMMIT
    assert not (tmp_path / "downloads/llm/notes.txt").exists()


def test_a_quantised_language_model_is_fetched_where_a_manifest_names_one(toy: Toy, tmp_path: Path) -> None:
    published = write_beside(toy, packed_model(language_model_of(toy, toy.final), "awq"))
    assert toy.manifest.downloads is not None
    named = toy.manifest.downloads["llm_base"].model_copy(update={"repository": "somebody/toy-awq"})
    downloads = {**toy.manifest.downloads, "llm_quantized": named}
    manifest = toy.manifest.model_copy(update={"downloads": downloads})

    fetch_model(manifest, tmp_path / "downloads", StoreOrigin(str(toy.folder)), lambda line: None)

    fetched = tmp_path / "downloads" / "llm_quantized" / "model.safetensors"
    assert fetched.read_bytes() == (published / "model.safetensors").read_bytes()


def test_an_interrupted_copy_goes_on_where_it_stopped(toy: Toy, tmp_path: Path) -> None:
    source, target = toy.folder / "slide_encoder", tmp_path / "downloads/slide_encoder"
    target.mkdir(parents=True)
    # Its own first bytes would hide whether they were kept.
    (target / "slide_encoder.pth.partial").write_bytes(b"kept")

    fetch_model(toy.manifest, tmp_path / "downloads", StoreOrigin(f"file://{toy.folder}"), lambda line: None)

    whole = (source / "slide_encoder.pth").read_bytes()
    assert (target / "slide_encoder.pth").read_bytes() == b"kept" + whole[4:]
    assert not list(target.glob("*.partial"))


@pytest.mark.parametrize("missing", ["slide_encoder", None])
def test_a_place_without_the_files_is_explained(toy: Toy, tmp_path: Path, missing: str | None) -> None:
    place = toy.folder if missing else tmp_path / "nowhere"
    (toy.folder / "slide_encoder/slide_encoder.pth").unlink()

    with pytest.raises(ModelError, match=r"no file of slide_encoder/.*slide_encoder\.pth|does not exist"):
        fetch_model(toy.manifest, tmp_path / "downloads", StoreOrigin(str(place)), lambda line: None)


def test_what_is_on_no_hub_is_asked_for_once_the_rest_is_there(tmp_path: Path) -> None:
    """The hub is not asked for it: no server runs here."""
    manifest, said = packaged_manifest("mllm-hwsi"), list[str]()
    assert manifest.downloads is not None
    by_hand = {part for part, download in manifest.downloads.items() if download.page}
    hub = HubOrigin(said.append, "http://127.0.0.1:1")

    def origin(part: Part, download: Download, folder: Path) -> None:
        if download.page:
            hub(part, download, folder)
        else:
            said.append(f"{part} from the hub")

    for name in ("vit256_small_dino.pth", None):
        with pytest.raises(ModelError, match=r"on no hub.*vit4k/ \(github\.com/mahmoodlab/HIPT") as caught:
            fetch_model(manifest, tmp_path, origin, said.append)
        assert ("vit256/" in caught.value.detail) is (name is not None)
        if name is not None:
            (tmp_path / "vit256" / name).write_bytes(b"there")
    for part in by_hand:
        (tmp_path / part / "weights.pth").write_bytes(b"there")

    fetch_model(manifest, tmp_path, origin, said.append)

    assert by_hand == {"vit256", "vit4k", "cellvit"}
    assert "llm from the hub" in said
