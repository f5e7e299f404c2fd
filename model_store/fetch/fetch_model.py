"""`models fetch`: the published files of a model → `<downloads>/<part>/`.

Where they come from is an `Origin`: the public hub (`fetch_from_hub`), or a folder or bucket (`fetch_from_store`).
"""

from collections.abc import Callable
from pathlib import Path

from model_store.convert.llava_checkpoint import layout_of
from model_store.errors import ModelError
from model_store.files.source_digests import Say
from model_store.manifest import Download, Manifest, Part

# Gets the files of one part into a folder that exists; raises ModelError with a sentence that says what to do.
Origin = Callable[[Part, Download, Path], None]


def fetch_model(manifest: Manifest, downloads: Path, origin: Origin, say: Say) -> None:
    """Gets every part that the model needs; the base only when the checkpoint is an adapter or a projector.

    Run it again after an interruption: what is complete is kept. Raises ModelError.
    """
    if manifest.downloads is None:
        raise ModelError(f"Model {manifest.name!r} has no downloads; there is nothing to fetch.")
    # The base last: whether it is needed, the checkpoint says.
    for part, download in sorted(manifest.downloads.items(), key=lambda item: item[0] == "llm_base"):
        is_llava = manifest.prompt.kind == "llava"  # of others the base has the tokenizer at least
        if part == "llm_base" and is_llava and layout_of(downloads / "llm") == "merged":
            say("llm_base: not needed, the checkpoint is merged")
            continue
        say(f"{part}: {download.repository} ({download.licence})")
        (downloads / part).mkdir(parents=True, exist_ok=True)
        origin(part, download, downloads / part)
    missing = [
        f"{part}/ ({download.page})"
        for part, download in manifest.downloads.items()
        if download.page and not any(path for pattern in download.patterns for path in (downloads / part).glob(pattern))
    ]
    if missing:
        raise ModelError(
            f"These files are on no hub: get them yourself and put them into the folders of {downloads}: "
            f"{'; '.join(missing)}. Then convert."
        )
