"""What the next vLLM version may break stands in one file."""

import ast
from pathlib import Path

PLUGIN = Path(__file__).parent.parent.parent / "vllm_plugin/eyepiece_vllm"
BORDER = "vllm_internals.py"


def vllm_imports(path: Path) -> set[str]:
    """Modules of vLLM that a file imports, anywhere in it."""
    tree = ast.parse(path.read_text())
    plain = {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
    froms = {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    return {name for name in plain | froms if name.split(".")[0] == "vllm"}


def test_only_the_border_imports_from_inside_vllm() -> None:
    for path in PLUGIN.glob("*.py"):
        inside = {name for name in vllm_imports(path) if name != "vllm"}
        assert path.name == BORDER or not inside, f"{path.name} imports {inside}"
    assert vllm_imports(PLUGIN / BORDER)


def test_every_import_of_the_border_has_its_reason_above_it() -> None:
    lines = (PLUGIN / BORDER).read_text().splitlines()
    imports = [number for number, line in enumerate(lines) if line.startswith("from vllm")]

    assert imports
    assert all(lines[number - 1].startswith("#") for number in imports)


def test_the_plugin_shares_no_code_with_the_rest() -> None:
    for path in PLUGIN.glob("*.py"):
        for word in ("server", "encoders", "model_store", "training"):
            assert f"import {word}" not in path.read_text()
            assert f"from {word}" not in path.read_text()
