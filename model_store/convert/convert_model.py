"""`models convert`: downloaded parts → an installed model. Reads pickles, once, through `weights_only`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from model_store.convert.convert_encoder import SLIDE_ENCODER_FILE, convert_slide_encoder, convert_tile_encoder
from model_store.convert.convert_llm import convert_llm
from model_store.convert.llava_checkpoint import LlavaCheckpoint, find_checkpoint
from model_store.errors import ModelError
from model_store.files.checkpoint_files import existing_file, shards_of
from model_store.files.sha256sums import write_sums
from model_store.files.source_digests import Say, check_and_record, with_recorded
from model_store.files.staged_folder import staged_model
from model_store.files.write_safetensors import Shape
from model_store.installed import InstalledModel, open_model
from model_store.manifest import MANIFEST_FILE, Download, Downloads, Manifest, Part
from model_store.manifest_text import manifest_text

_NAMES_SHOWN: Final = 12


@dataclass(frozen=True)
class EncoderShapes:
    """Name and shape of every tensor of both encoders, as their architectures have them."""

    tile_encoder: Mapping[str, Shape]
    slide_encoder: Mapping[str, Shape]


def convert_model(
    manifest: Manifest, downloads: Path, models_dir: Path, shapes: EncoderShapes, say: Say
) -> InstalledModel:
    """Installs the model from `<downloads>/<part>/` folders, in place of an earlier installation of it.

    An interrupted run leaves nothing that looks like a model. Raises ModelError that names the file or tensor at fault.
    """
    conversion = _Conversion(with_recorded(manifest, models_dir), downloads, shapes, say)
    with staged_model(models_dir, manifest.name) as folder:
        recorded = conversion.run(folder)
        (folder / MANIFEST_FILE).write_text(manifest_text(recorded), encoding="utf-8")
        write_sums(folder)
    return open_model(models_dir, manifest.name)


@dataclass(frozen=True)
class _Conversion:
    manifest: Manifest
    downloads: Path
    shapes: EncoderShapes
    say: Say

    def run(self, folder: Path) -> Manifest:
        """Fills the folder's parts; returns the manifest with what was recorded on the way."""
        known = self.manifest.downloads
        if known is None:
            raise ModelError(f"Model {self.manifest.name!r} has no downloads; there is nothing to convert.")
        recorded = known.by_part()
        recorded["tile_encoder"] = self._tile_encoder(known.tile_encoder, folder / self.manifest.tile_encoder.weights)
        recorded["slide_encoder"] = self._slide_encoder(
            known.slide_encoder, folder / self.manifest.slide_encoder.weights
        )
        recorded |= self._llm(known, folder / self.manifest.llm.path)
        return self.manifest.model_copy(update={"downloads": Downloads(**recorded)})

    def _tile_encoder(self, download: Download, path: Path) -> Download:
        path.parent.mkdir()
        folder = self._folder("tile_encoder")
        files = shards_of(folder)
        recorded = check_and_record("tile_encoder", download, folder, files, self.say)
        convert_tile_encoder(files, self.shapes.tile_encoder, self.manifest.tile_encoder.dtype, path)
        return recorded

    def _slide_encoder(self, download: Download, path: Path) -> Download:
        path.parent.mkdir()
        folder = self._folder("slide_encoder")
        file = existing_file(folder, SLIDE_ENCODER_FILE)
        recorded = check_and_record("slide_encoder", download, folder, [file], self.say)
        self._say_dropped("slide_encoder", convert_slide_encoder(file, self.shapes.slide_encoder, path))
        return recorded

    def _llm(self, known: Downloads, path: Path) -> dict[Part, Download]:
        path.mkdir()
        checkpoint = find_checkpoint(self._folder("llm"), self.downloads / "llm_base")
        self.say(f"llm: the layout is {checkpoint.layout}")
        recorded = self._record_llm(known, checkpoint)
        self._say_dropped("llm", convert_llm(checkpoint, self.manifest, path))
        return recorded

    def _record_llm(self, known: Downloads, checkpoint: LlavaCheckpoint) -> dict[Part, Download]:
        folders: dict[Part, Path] = {"llm": checkpoint.folder}
        if checkpoint.layout != "merged":
            folders["llm_base"] = checkpoint.base
        return {
            part: check_and_record(part, known.by_part()[part], folder, checkpoint.files_in(folder), self.say)
            for part, folder in folders.items()
        }

    def _folder(self, part: Part) -> Path:
        folder = self.downloads / part
        if not folder.is_dir():
            raise ModelError(f"There is no folder {part}/ in the downloads: `eyepiece models fetch` makes it.")
        return folder

    def _say_dropped(self, part: Part, dropped: Sequence[str]) -> None:
        if dropped:
            shown = ", ".join(dropped[:_NAMES_SHOWN])
            more = f" and {len(dropped) - _NAMES_SHOWN} more" if len(dropped) > _NAMES_SHOWN else ""
            self.say(f"{part}: not served and left out: {shown}{more}")
