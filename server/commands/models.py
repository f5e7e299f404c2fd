"""`eyepiece models …`: what is in the model store and how it gets there. Only `fetch` may reach for a network."""

from pathlib import Path
from typing import Any

from model_store.errors import ModelError
from model_store.installed import InstalledModel, open_model, verify_digests
from model_store.manifest import MANIFEST_FILE, Manifest, Quantization, load_manifest, packaged_manifest, packaged_names
from model_store.packaged_models import install_packaged
from server.commands.terminal import print_json

_DIGEST_CHARS = 16


def show(models_dir: Path, as_json: bool) -> None:
    """One line for each model that is known or installed."""
    names = sorted({*packaged_names(), *_folders(models_dir)})
    rows = [_describe(models_dir, name) for name in names]
    if as_json:
        print_json({"models": rows})
        return
    for row in rows:
        print(f"{row['name']:<14} {row['state']:<14} {row['title']}")
        for doubt in row["doubts"]:
            print(f"{'':<14} {'doubted':<14} {doubt}")


def install(name: str, models_dir: Path) -> None:
    """A model that ships with Eyepiece; keeps one that is complete and current."""
    model = install_packaged(models_dir, name)
    print(f"{name} is installed in {model.folder}")


def fetch(manifest: Manifest, downloads: Path, origin: str | None) -> None:
    """The published files, from the hub or from `origin`, a folder or bucket."""
    from model_store.fetch.fetch_model import Origin, fetch_model
    from model_store.fetch.from_hub import HubOrigin
    from model_store.fetch.from_store import StoreOrigin

    source: Origin = StoreOrigin(origin) if origin else HubOrigin(_say)
    fetch_model(manifest, downloads, source, _say)
    print(f"{manifest.name} is complete in {downloads}; next: eyepiece models convert {manifest.name}")


def convert(manifest: Manifest, downloads: Path, models_dir: Path, quantize: Quantization) -> None:
    """The fetched files become an installed model; a quantised one has its own name."""
    from encoders.expected_shapes import expected_shapes
    from model_store.convert.convert_model import convert_model

    model = convert_model(manifest, downloads, models_dir, expected_shapes(manifest), _say, quantize)
    name = model.manifest.name
    for doubt in model.manifest.doubts:
        print(f"doubted: {doubt}")
    print(f"{name} is installed in {model.folder}; next: eyepiece up --model {name}")


def verify(model: InstalledModel, device: str, record_golden: bool) -> None:
    """Digests, then shapes, then the golden vector where there is one."""
    from encoders import golden_vector
    from encoders.expected_shapes import expected_shapes
    from encoders.familiarity import read_statistics
    from encoders.one_gpu import see_one_gpu
    from model_store.verify import verify_shapes
    from server.commands.model_familiarity import statistics_line

    verify_digests(model)
    print(f"digests        {len(model.digests)} files are what was installed")
    tensors = verify_shapes(model, expected_shapes(model.manifest))
    print(f"shapes         {tensors} tensors are what the manifest describes")
    print(f"language model {_llm_line(model)}")
    for doubt in model.manifest.doubts:
        print(f"doubted        {doubt}")
    device = see_one_gpu(device)
    if record_golden:
        model = golden_vector.record_golden(model, device)
    found = golden_vector.check_golden(model, device)
    print(f"golden vector  {_golden_line(found, record_golden)}")
    print(f"familiarity    {statistics_line(read_statistics(model))}")


def compare_outputs(model: InstalledModel, features: Path, published: Path, device: str) -> None:
    """Which output of the slide encoder comes nearest to a published feature file."""
    from encoders.compare_outputs import compare_outputs, read_published_rows
    from encoders.features_file import read_features
    from encoders.one_gpu import see_one_gpu

    device = see_one_gpu(device)
    rows = read_published_rows(published, model.manifest.longnet_pool())
    print(f"{'output':<30} {'mean cosine':>12} {'mean difference':>16}")
    for match in compare_outputs(model, read_features(features), rows, device):
        print(f"{match.output:<30} {match.cosine:>12.6f} {match.difference:>16.6f}")


def add(folder: Path, models_dir: Path) -> None:
    """A model that another machine converted."""
    from model_store.add import add_model

    model = add_model(folder, models_dir)
    print(f"{model.manifest.name} is installed in {model.folder}")


def compose(folder: Path, models_dir: Path) -> None:
    """A model of one's own, from a folder with a manifest and weights."""
    from encoders.expected_shapes import expected_shapes
    from model_store.compose import compose_model

    model = compose_model(folder, models_dir, expected_shapes(load_manifest(folder / MANIFEST_FILE)))
    name = model.manifest.name
    print(f"{name} is installed in {model.folder}; next: eyepiece up --model {name}")


def chosen_manifest(name: str, file: Path | None) -> Manifest:
    """The packaged manifest, or the one in `file`, which must have that name."""
    if file is None:
        return packaged_manifest(name)
    manifest = load_manifest(file)
    if manifest.name != name:
        raise ModelError(f"The given manifest is of {manifest.name!r}, not of {name!r}.")
    return manifest


def _llm_line(model: InstalledModel) -> str:
    """What the answers come from; the golden vector is of the encoders alone."""
    llm = model.manifest.llm
    stored = llm.dtype if llm.quantization == "none" else f"{llm.quantization}, computed in {llm.dtype}"
    return f"{stored}; digest {model.llm_digest[:_DIGEST_CHARS]}"


def _golden_line(found: Any, recorded: bool) -> str:
    if found is None:
        return "none in this model; --record-golden makes one"
    tile = "not compared in 8 bits" if found.tile_features is None else f"{found.tile_features:.2g}"
    differences = f"tile features {tile}, slide tokens {found.slide_tokens:.2g}"
    return f"{'recorded; ' if recorded else ''}largest differences: {differences} (at most {found.atol:g})"


def _say(line: str) -> None:
    print(line, flush=True)


def installed_names(models_dir: Path) -> list[str]:
    """The folders of installed models, whole or damaged."""
    return sorted(_folders(models_dir))


def _folders(models_dir: Path) -> list[str]:
    if not models_dir.is_dir():
        return []
    return [path.name for path in models_dir.iterdir() if path.is_dir() and not path.name.startswith(".")]


def _describe(models_dir: Path, name: str) -> dict[str, Any]:
    """`state` is installed, not installed, or damaged with the reason as `title`."""
    if not (models_dir / name).is_dir():
        return _row(packaged_manifest(name), "not installed")
    try:
        return _row(open_model(models_dir, name).manifest, "installed")
    except ModelError as error:
        return {"name": name, "state": "damaged", "title": error.detail, "licence": None, "doubts": []}


def _row(manifest: Manifest, state: str) -> dict[str, Any]:
    told = {"title": manifest.title, "licence": manifest.licence, "doubts": list(manifest.doubts)}
    return {"name": manifest.name, "state": state, **told}
