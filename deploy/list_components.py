"""Lists what is in an image (CycloneDX 1.6) while it is built: Python environments, interpreter, Debian's packages.

    list_components.py eyepiece-vllm /usr/share/eyepiece /opt/eyepiece /opt/vllm

    sbom.cdx.json   the components, each with version, package URL and licences as its maker declares them
    licences.txt    name, version, licences: the same for readers

Environments are read by cyclonedx-py, whose schema the result is held against. A package that declares no licence is
listed with none. Runs from the environment that `deploy/locks/sbom.txt` makes, with the image's own files around it.
"""

import json
import re
import subprocess
import sys
import sysconfig
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

Component = dict[str, Any]
DPKG_FORMAT = "${db:Status-Status} ${Package} ${Version} ${Architecture}\\n"
DEBIAN_DOCS = Path("/usr/share/doc")
# The Python that comes with the base image is nobody's package.
INTERPRETER = f"{sys.version_info.major}.{sys.version_info.minor}.{sys.version_info.micro}"
NOT_DECLARED = "not declared"
_ENVIRONMENT = "eyepiece:environment"
# Of Debian's machine-readable copyright files; others are prose.
_FORMAT = re.compile(r"(?i)\AFormat(-Specification)?:")
_LICENSE = re.compile(r"(?m)^License:[ \t]*(\S.*)$")


def environment_document(environment: Path) -> dict[str, Any]:
    """What cyclonedx-py says of an environment.

    Raises:
        CalledProcessError: it could not be read.
    """
    command = [
        sys.executable, "-m", "cyclonedx_py", "environment", "--output-reproducible", "--spec-version", "1.6",
        "--output-format", "JSON", environment / "bin" / "python",
    ]  # fmt: skip
    listed = subprocess.run([str(part) for part in command], check=True, stdout=subprocess.PIPE, text=True).stdout
    document: dict[str, Any] = json.loads(listed)
    return document


def in_environment(document: dict[str, Any], environment: Path) -> tuple[list[Component], list[dict[str, Any]]]:
    """Components and dependencies, told apart from those of the same name in another environment of the image."""

    def named(reference: str) -> str:
        return f"{environment}:{reference}"

    components = [
        {
            **component,
            "bom-ref": named(component["bom-ref"]),
            "properties": [*component.get("properties", []), {"name": _ENVIRONMENT, "value": str(environment)}],
        }
        for component in document.get("components", [])
    ]
    dependencies = [
        {"ref": named(it["ref"]), **({"dependsOn": [named(on) for on in it["dependsOn"]]} if "dependsOn" in it else {})}
        for it in document.get("dependencies", [])
    ]
    return components, dependencies


def debian_components(listed: Iterable[str], docs: Path, release: str) -> list[Component]:
    """Debian's installed packages, from the lines of `dpkg-query`, with the licences of their copyright files."""
    found = []
    for line in listed:
        status, package, version, architecture = line.split()
        if status != "installed":
            continue
        purl = f"pkg:deb/debian/{package}@{quote(version, safe='~')}?arch={architecture}&distro=debian-{release}"
        found.append(
            {
                "type": "library",
                "bom-ref": purl,
                "name": package,
                "version": version,
                "purl": purl,
                **licences_field(debian_licences(docs / package / "copyright")),
            }
        )
    return found


def debian_licences(copyright_file: Path) -> list[str]:
    """The short names in a machine-readable copyright file; of one in prose, that it is."""
    if not copyright_file.is_file():
        return []
    text = copyright_file.read_text(errors="replace")
    if not _FORMAT.match(text):
        return ["as in the package's copyright file"]
    return sorted({name.strip() for name in _LICENSE.findall(text)})


def licences_field(names: Sequence[str]) -> Component:
    """The field of a component; Debian's short names are not SPDX's."""
    return {"licenses": [{"license": {"name": name}} for name in names]} if names else {}


def interpreter() -> Component:
    """Python itself."""
    purl = f"pkg:generic/python@{INTERPRETER}"
    return {
        "type": "platform",
        "bom-ref": purl,
        "name": "python",
        "version": INTERPRETER,
        "purl": purl,
        "licenses": [{"license": {"id": "PSF-2.0"}}],
        "properties": [{"name": _ENVIRONMENT, "value": sysconfig.get_config_var("prefix") or sys.base_prefix}],
    }


def declared_licences(component: Component) -> list[str]:
    """In words, as the maker wrote them; one long text stands for itself by its first line."""
    words = []
    for entry in component.get("licenses", []):
        licence = entry.get("license", {})
        text = entry.get("expression") or licence.get("id") or licence.get("name") or NOT_DECLARED
        words.append(text.strip().splitlines()[0])
    return words or [NOT_DECLARED]


def licences_text(components: Sequence[Component]) -> str:
    """A line for each component."""
    lines = sorted({f"{it['name']} {it['version']}: {'; '.join(declared_licences(it))}\n" for it in components})
    return "".join(lines)


def document_of(image: str, parts: Sequence[tuple[list[Component], list[dict[str, Any]]]]) -> dict[str, Any]:
    """The whole list, without a time in it: the same image has the same list."""
    components = [component for found, _ in parts for component in found]
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": {"type": "container", "bom-ref": image, "name": image}},
        "components": components,
        "dependencies": [
            {"ref": image, "dependsOn": [it["bom-ref"] for it in components]},
            *(dependency for _, found in parts for dependency in found),
        ],
    }


def require_valid(text: str) -> None:
    """Ends the build over a document that other tools could not read."""
    from cyclonedx.schema import SchemaVersion  # type: ignore[import-not-found]
    from cyclonedx.validation.json import JsonStrictValidator  # type: ignore[import-not-found]

    if error := JsonStrictValidator(SchemaVersion.V1_6).validate_str(text):
        raise SystemExit(f"The list of components is not CycloneDX: {error}")


def main(arguments: Sequence[str]) -> int:
    """Exit code 0; whatever is missing ends the build."""
    image, folder, *environments = arguments
    release = dict(line.split("=", 1) for line in Path("/etc/os-release").read_text().splitlines() if "=" in line)
    packages = subprocess.run(
        ["dpkg-query", "--show", f"--showformat={DPKG_FORMAT}"], check=True, stdout=subprocess.PIPE, text=True
    ).stdout.splitlines()
    parts = [in_environment(environment_document(Path(it)), Path(it)) for it in environments]
    parts.append(([interpreter()], []))
    parts.append((debian_components(packages, DEBIAN_DOCS, release["VERSION_ID"].strip('"')), []))
    document = document_of(image, parts)
    text = json.dumps(document, indent=1, sort_keys=True)
    require_valid(text)
    out = Path(folder)
    out.mkdir(parents=True, exist_ok=True)
    (out / "sbom.cdx.json").write_text(text)
    (out / "licences.txt").write_text(licences_text(document["components"]))
    print(f"{image}: {len(document['components'])} components")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
