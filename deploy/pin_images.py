"""`make pin-images`: writes the digest behind the tag of every image that is not ours, wherever it is named.

    haproxy:2.6-alpine  →  haproxy:2.6-alpine@sha256:…

The registry is asked through `docker buildx imagetools inspect`; nothing is pulled. An image that has a digest gets the
one that its tag has now. Nothing is written unless all of them are known. Standard library only.
"""

import re
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# Every file that names an image of somebody else, and the words before it.
PLACES = (
    ROOT / "docker-compose.yml",
    ROOT / "deploy" / "Dockerfile",
    ROOT / "deploy" / "helm" / "eyepiece" / "values.yaml",
)
_IMAGE = re.compile(
    r"(?m)^(?P<before>\s*image: |ARG PYTHON_IMAGE=|# syntax=)"
    r"(?P<tag>(?!eyepiece-)[a-z0-9./-]+:[A-Za-z0-9._-]+)(?P<digest>@sha256:[0-9a-f]{64})?$"
)
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


def images(text: str) -> dict[str, str | None]:
    """Tag → digest, None where there is none yet, of the images that a file names."""
    return {found["tag"]: found["digest"] for found in _IMAGE.finditer(text)}


def pinned(text: str, digests: dict[str, str]) -> str:
    """The file's text with every digest behind its tag."""
    return _IMAGE.sub(lambda found: f"{found['before']}{found['tag']}@{digests[found['tag']]}", text)


def digest_of(tag: str) -> str:
    """The digest of the index that a tag names now; raises OSError or CalledProcessError, or ValueError."""
    command = ["docker", "buildx", "imagetools", "inspect", tag, "--format", "{{.Manifest.Digest}}"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    if not _DIGEST.fullmatch(said):
        raise ValueError("no digest")
    return said


def main(places: Iterable[Path] = PLACES, ask: Callable[[str], str] = digest_of) -> int:
    """Exit code: 0 all are pinned, 1 a registry or docker did not answer and nothing was changed."""
    texts = {place: place.read_text() for place in places}
    digests: dict[str, str] = {}
    for tag in sorted({tag for text in texts.values() for tag in images(text)}):
        try:
            digests[tag] = ask(tag)
        except (OSError, ValueError, subprocess.CalledProcessError):
            sys.stderr.write(
                f"The digest of {tag} could not be had; nothing was changed. This needs docker with buildx, and the "
                "registry.\n"
            )
            return 1
    for place, text in texts.items():
        place.write_text(pinned(text, digests))
    return 0


if __name__ == "__main__":
    sys.exit(main())
