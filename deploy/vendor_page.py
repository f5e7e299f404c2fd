"""Fetches the code of others that the page holds (web/vendored.toml), through npm and from where npm is configured to.

Nothing is written unless the package and every file of it have the recorded digests. Standard library only.
"""

import base64
import hashlib
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RECORD = ROOT / "web" / "vendored.toml"
FOLDER = ROOT / "web" / "page" / "vendor"


class VendorError(Exception):
    """One sentence for the person at the terminal."""


def fetch(name: str, version: str, folder: Path) -> Path:
    """The package's archive, in `folder`."""
    command = ["npm", "pack", "--silent", "--pack-destination", str(folder), f"{name}@{version}"]
    try:
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    except FileNotFoundError:
        raise VendorError("npm is not installed (Debian: apt-get install npm).") from None
    except subprocess.CalledProcessError:
        raise VendorError(f"npm could not fetch {name} {version}; see above.") from None
    (archive,) = folder.glob("*.tgz")
    return archive


def checked_files(archive: Path, record: dict[str, Any]) -> dict[str, bytes]:
    """What is taken of the archive, by file name.

    Raises:
        VendorError: the archive or a file is not what was recorded.
    """
    digest = base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
    if f"sha512-{digest}" != record["integrity"]:
        raise VendorError(f"{archive.name} is not the package that was recorded: its sha512 is {digest}.")
    found = {}
    with tarfile.open(archive) as members:
        for path, expected in record["files"].items():
            member = members.extractfile(f"package/{path}")
            content = member.read() if member else b""
            if hashlib.sha256(content).hexdigest() != expected:
                raise VendorError(f"{path} in {archive.name} is not the file that was recorded.")
            found[Path(path).name] = content
    return found


def main() -> int:
    """Exit code: 0 done, 1 not."""
    try:
        for name, record in tomllib.loads(RECORD.read_text()).items():
            with tempfile.TemporaryDirectory() as scratch:
                files = checked_files(fetch(name, record["version"], Path(scratch)), record)
            for file, content in files.items():
                (FOLDER / name).mkdir(parents=True, exist_ok=True)
                (FOLDER / name / file).write_bytes(content)
                print(f"{name} {record['version']}: {file}, {len(content):,} bytes")
    except VendorError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
