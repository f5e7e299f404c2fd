"""What docs/architecture.md says about packages and rooms is what the code does, and imports point one way."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "architecture.md"
# Belong to no room, and may be imported by all of them.
BETWEEN = {"errors", "settings", "to_the_end", "served_models", "trusted_ca"}
JOINS = {"__init__", "__main__", "app", "worker"}


def table(heading: str) -> dict[str, list[str]]:
    """First and last column of the first table below a heading, in order."""
    lines = PAGE.read_text().split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0].splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| `")]
    return {row[0].strip("`"): [name for name in row[-1].split(", ") if name] for row in rows}


def imports(path: Path) -> Iterator[str]:
    """Dotted names of the modules that a file imports, wherever in the file it does."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def imported(folder: Path) -> set[str]:
    return {name for path in folder.rglob("*.py") for name in imports(path)}


def test_the_packages_import_what_the_table_says() -> None:
    said = table("Packages")

    found = {
        package: sorted({name.split(".")[0] for name in imported(ROOT / package)} & set(said) - {package})
        for package in said
    }

    assert found == said


def test_only_commands_import_what_is_there_to_be_tried_with() -> None:
    importing = {
        str(path.relative_to(ROOT / "server").parent)
        for path in (ROOT / "server").rglob("*.py")
        if {name.split(".")[0] for name in imports(path)} & {"evaluation", "synthetic"}
    }

    assert importing == {"commands"}


def test_every_file_of_the_server_lies_in_a_room_or_between_them() -> None:
    folders = {path.parent.name for path in (ROOT / "server").glob("*/__init__.py")}
    files = {path.stem for path in (ROOT / "server").glob("*.py")}

    assert folders == set(table("Rooms of `server`"))
    assert files == BETWEEN | JOINS


def test_the_rooms_import_what_the_table_says_and_only_downwards() -> None:
    said = table("Rooms of `server`")
    order = list(said)
    found = {}
    for room in order:
        names = {name.split(".")[1] for name in imported(ROOT / "server" / room) if name.startswith("server.")}
        found[room] = sorted(names - {room} - BETWEEN)

    assert found == said
    assert [(room, other) for room in order for other in said[room] if order.index(other) < order.index(room)] == []


def test_only_the_api_sees_all_parts() -> None:
    importing = {
        str(path.relative_to(ROOT / "server"))
        for path in (ROOT / "server").rglob("*.py")
        if any(name.startswith("server.api.parts") for name in imports(path))
    }

    assert importing == {"app.py", "api/dependencies.py"}


def test_the_files_that_a_request_crosses_are_there() -> None:
    crossed = PAGE.read_text().split("## What a request crosses\n", 1)[1]
    files = [line.split("`")[1] for line in crossed.splitlines() if line.startswith("| `")]

    assert len(files) == len(set(files) - {""}) + 1  # the catalogue is in both
    assert [name for name in files if not (ROOT / "server" / name).is_file()] == []
