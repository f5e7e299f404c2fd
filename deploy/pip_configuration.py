"""pip's configuration as the variables that uv reads: uv does not look at pip's files or variables."""

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname


def read_pip_configuration(python: Path) -> dict[str, str]:
    """pip's options by name; a variable beats a file, a section for `install` beats the global one."""
    listed = subprocess.run([python, "-m", "pip", "config", "list"], capture_output=True, text=True, check=False).stdout
    options: dict[str, str] = {}
    for section in ("global.", "install.", ":env:."):
        for line in listed.splitlines():
            if line.startswith(section) and "=" in line:
                name, value = line[len(section) :].split("=", 1)
                options[name] = value.strip().strip("'\"").replace("\\n", " ")
    return options


def is_usable_location(location: str) -> bool:
    """False only for a local index or wheel folder that is not there: uv would stop, pip goes on."""
    parts = urlsplit(location)
    if parts.scheme == "file":
        return Path(url2pathname(parts.path)).is_dir()
    return bool(parts.scheme) or Path(location).is_dir()


def uv_environment(pip_options: Mapping[str, str]) -> dict[str, str]:
    """pip's options as the variables that uv reads; what the caller set for uv itself is left alone."""
    found: dict[str, str] = {}
    find_links = [place for place in pip_options.get("find-links", "").split() if is_usable_location(place)]
    if find_links:
        found["UV_FIND_LINKS"] = ",".join(find_links)
    extra = [place for place in pip_options.get("extra-index-url", "").split() if is_usable_location(place)]
    if extra:
        found["UV_EXTRA_INDEX_URL"] = " ".join(extra)
        # pip takes the best version of all indexes; uv would stop at the first index that knows the name.
        found["UV_INDEX_STRATEGY"] = "unsafe-best-match"
    for option, variable in (
        ("index-url", "UV_DEFAULT_INDEX"),
        ("trusted-host", "UV_INSECURE_HOST"),
        ("cert", "SSL_CERT_FILE"),
        ("timeout", "UV_HTTP_TIMEOUT"),
        ("proxy", "ALL_PROXY"),
    ):
        if option in pip_options:
            found[variable] = pip_options[option]
    # pip calls its timeout default-timeout when it comes from PIP_DEFAULT_TIMEOUT.
    if "default-timeout" in pip_options:
        found.setdefault("UV_HTTP_TIMEOUT", pip_options["default-timeout"])
    return {name: value for name, value in found.items() if name not in os.environ}
