"""`models convert`: downloaded parts → an installed model. Reads pickles, once, through `weights_only`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from model_store.contracts.hierarchical import Hierarchical
from model_store.contracts.slide_stage import LongnetAll, LongnetPool
from model_store.contracts.tile_encoder import ConchTileEncoder, TileEncoderSpec
from model_store.convert.convert_encoder import SLIDE_ENCODER_FILE, convert_slide_encoder, convert_tile_encoder
from model_store.convert.convert_hierarchy import convert_conch
from model_store.convert.convert_hwsi import ENCODERS, convert_hwsi_llm, convert_levels
from model_store.convert.convert_llm import LlmSources, convert_llm
from model_store.convert.convert_slidechat import convert_slidechat_llm, convert_slidechat_longnet
from model_store.convert.hwsi_checkpoint import find_hwsi_checkpoint, only_weights_file
from model_store.convert.llava_checkpoint import LlavaCheckpoint, find_checkpoint
from model_store.convert.packed_model import FOLDER, PackedModel, find_packed_model
from model_store.convert.quantized_manifest import OWN_QUANTIZED, quantized_manifest
from model_store.convert.xtuner_checkpoint import find_xtuner_checkpoint
from model_store.errors import ModelError
from model_store.files.checkpoint_files import existing_file, shards_of
from model_store.files.sha256sums import write_sums
from model_store.files.source_digests import Say, check_and_record, with_recorded
from model_store.files.staged_folder import staged_model
from model_store.files.write_safetensors import Shape
from model_store.installed import InstalledModel, open_model
from model_store.manifest import MANIFEST_FILE, Download, Manifest, Part, Quantization
from model_store.manifest_text import manifest_text

_NAMES_SHOWN: Final = 12
# Parts that a conversion needs, by what is composed: slide stage, projector, prompt. LongNet and projector are in `llm`
# where there is no part of their own.
_LLAVA: Final = ("longnet-pool", "mlp", "llava")
_SLIDECHAT: Final = ("longnet-all", "mlp", "chatml")
_HWSI: Final = ("hierarchical", "none", "chatml")
_PARTS: Final = {
    _LLAVA: ("tile_encoder", "slide_encoder", "llm", "llm_base"),
    _SLIDECHAT: ("tile_encoder", "llm", "llm_base"),
    _HWSI: (*ENCODERS, "llm"),
}


# Of the encoders, as their architectures have them: name and shape of every tensor, by file of weights.
Shapes = Mapping[str, Mapping[str, Shape]]


def convert_model(
    manifest: Manifest,
    downloads: Path,
    models_dir: Path,
    shapes: Shapes,
    say: Say,
    quantize: Quantization = "none",
) -> InstalledModel:
    """Installs the model from `<downloads>/<part>/` folders, in place of an earlier installation of it.

    A quantised language model answers otherwise, so it is installed under a name of its own (`quantized_manifest`).
    An interrupted run leaves nothing that looks like a model. Raises ModelError that names the file or tensor at fault.
    """
    manifest = with_recorded(manifest, models_dir)
    if quantize != "none":
        manifest = with_recorded(quantized_manifest(manifest, quantize), models_dir)
    conversion = _Conversion(manifest, downloads, shapes, say)
    with staged_model(models_dir, manifest.name) as folder:
        recorded = conversion.run(folder)
        (folder / MANIFEST_FILE).write_text(manifest_text(recorded), encoding="utf-8")
        write_sums(folder)
    return open_model(models_dir, manifest.name)


@dataclass(frozen=True)
class _Conversion:
    manifest: Manifest
    downloads: Path
    shapes: Shapes
    say: Say

    def run(self, folder: Path) -> Manifest:
        """Fills the folder's parts; returns the manifest with what was recorded on the way."""
        manifest, known = self.manifest, self.manifest.downloads
        if known is None:
            raise ModelError(f"Model {manifest.name!r} has no downloads; there is nothing to convert.")
        stage = manifest.slide_stage
        parts = _PARTS.get((stage.kind, manifest.projector.kind, manifest.prompt.kind), ())
        if len(manifest.inputs) > 1 or not parts:
            raise ModelError(
                "Only models that are composed as WSI-LLaVA, SlideChat or MLLM-HWSI are can be converted. Lay out this "
                "one's folder as docs/add-a-model.md says, and install it with `eyepiece models compose`."
            )
        missing = [part for part in parts if part not in known]
        if missing:
            raise ModelError(f"The manifest has no downloads.{missing[0]}; it says where the files come from.")
        if isinstance(stage, Hierarchical):
            return self._hwsi(known, stage, folder)
        # First, because most can be wrong with it.
        if isinstance(stage, LongnetAll):
            recorded = known | self._slidechat(known, stage, folder)
        else:
            assert isinstance(stage, LongnetPool)
            recorded = known | self._llm(known, folder / manifest.llm.path)
            recorded["slide_encoder"] = self._slide_encoder(known["slide_encoder"], stage, folder / stage.weights)
        tiles = manifest.first_input.tile_encoder
        recorded["tile_encoder"] = self._tile_encoder(known["tile_encoder"], tiles, folder / tiles.weights)
        return manifest.model_copy(update={"downloads": recorded})

    def _tile_encoder(self, download: Download, spec: TileEncoderSpec, path: Path) -> Download:
        path.parent.mkdir()
        folder = self._folder("tile_encoder")
        files = shards_of(folder)
        recorded = check_and_record("tile_encoder", download, folder, files, self.say)
        if isinstance(spec, ConchTileEncoder):
            [file] = files
            self._say_dropped("tile_encoder", convert_conch(file, self.shapes[spec.weights], spec.dtype, path))
        else:
            convert_tile_encoder(files, self.shapes[spec.weights], spec.dtype, path)
        return recorded

    def _slidechat(self, known: Mapping[Part, Download], spec: LongnetAll, folder: Path) -> dict[Part, Download]:
        """Language model, projector and LongNet, which are one checkpoint."""
        if self.manifest.llm.quantization not in ("none", "fp8"):
            raise ModelError(f"SlideChat is served in 16 bits or fp8, not {self.manifest.llm.quantization}.")
        base = self.downloads / "llm_base"
        checkpoint = find_xtuner_checkpoint(self._folder("llm"), base)
        self.say(f"llm: the layout is {checkpoint.layout}")
        recorded = {"llm": check_and_record("llm", known["llm"], checkpoint.folder, checkpoint.files(), self.say)}
        if base_files := checkpoint.base_files():
            recorded["llm_base"] = check_and_record("llm_base", known["llm_base"], base, base_files, self.say)
        path = folder / spec.weights
        path.parent.mkdir()
        convert_slidechat_longnet(checkpoint, self.shapes[spec.weights], path)
        served = folder / self.manifest.llm.path
        served.mkdir()
        self._say_dropped("llm", convert_slidechat_llm(checkpoint, self.manifest, served))
        return recorded

    def _hwsi(self, known: Mapping[Part, Download], stage: Hierarchical, folder: Path) -> Manifest:
        """Language model and projector, which are one folder, and five encoders of one file each; the manifest with the
        normalisation that CellViT's file says, and with what is doubtful about the weights."""
        if self.manifest.llm.quantization not in ("none", "fp8"):
            raise ModelError(f"MLLM-HWSI is served in 16 bits or fp8, not {self.manifest.llm.quantization}.")
        checkpoint = find_hwsi_checkpoint(self._folder("llm"))
        files = {name: only_weights_file(self._folder(name)) for name in ENCODERS}
        recorded = dict(known)
        recorded["llm"] = check_and_record("llm", known["llm"], checkpoint.folder, checkpoint.files(), self.say)
        for name, file in files.items():
            recorded[name] = check_and_record(name, known[name], file.parent, [file], self.say)
        served = folder / self.manifest.llm.path
        served.mkdir()
        self._say_dropped("llm", convert_hwsi_llm(checkpoint, self.manifest, served))
        levels = convert_levels({**files, "projector": checkpoint.projector}, stage, self.shapes, folder)
        for name, dropped in levels.dropped.items():
            self._say_dropped(name, dropped)
        if levels.stage != stage:
            self.say(f"cellvit: its normalisation is {levels.stage.cellvit.mean} and {levels.stage.cellvit.std}")
        changes = {"downloads": recorded, "slide_stage": levels.stage, "doubts": tuple(levels.doubts)}
        return self.manifest.model_copy(update=changes)

    def _slide_encoder(self, download: Download, spec: LongnetPool, path: Path) -> Download:
        path.parent.mkdir()
        folder = self._folder("slide_encoder")
        file = existing_file(folder, SLIDE_ENCODER_FILE)
        recorded = check_and_record("slide_encoder", download, folder, [file], self.say)
        self._say_dropped("slide_encoder", convert_slide_encoder(file, self.shapes[spec.weights], path))
        return recorded

    def _llm(self, known: Mapping[Part, Download], path: Path) -> dict[Part, Download]:
        path.mkdir()
        quantize, beside = self.manifest.llm.quantization, self.downloads / FOLDER
        base = self.downloads / "llm_base"
        # A projector needs no 16-bit base where its base is there in 4 bits.
        instead = beside if quantize in ("awq", "gptq") and beside.is_dir() and not base.is_dir() else base
        checkpoint = find_checkpoint(self._folder("llm"), instead)
        self.say(f"llm: the layout is {checkpoint.layout}")
        packed = find_packed_model(checkpoint, beside, quantize)
        if packed is not None:
            self.say(f"llm: the language model in {packed.folder.name}/ is quantised: {packed.form}")
        elif beside.is_dir():
            self.say(f"{FOLDER}: not used; --quantize awq or gptq asks for it")
        recorded = self._record_llm(known, checkpoint, packed)
        fine_tuned_from = shards_of(base) if packed is not None and packed.apart and base.is_dir() else []
        sources = LlmSources(checkpoint, fine_tuned_from, packed)
        self._say_dropped("llm", convert_llm(sources, self.manifest, path, self.say))
        return recorded

    def _record_llm(
        self, known: Mapping[Part, Download], checkpoint: LlavaCheckpoint, packed: PackedModel | None
    ) -> dict[Part, Download]:
        places: dict[Part, Path] = {
            "llm": checkpoint.folder,
            "llm_base": self.downloads / "llm_base",
            "llm_quantized": self.downloads / FOLDER,
        }
        by_part: dict[Part, Download] = {"llm_quantized": OWN_QUANTIZED, **known}
        recorded = {}
        for part, folder in places.items():
            files = {
                *(checkpoint.files_in(folder) if folder in (checkpoint.folder, checkpoint.base) else ()),
                *(packed.files() if packed is not None and packed.folder == folder else ()),
            }
            if files:
                recorded[part] = check_and_record(part, by_part[part], folder, sorted(files), self.say)
        return recorded

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
