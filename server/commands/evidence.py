"""Evidence of an answer in the terminal: the cells of the tissue, and what leaving them out takes from it."""

from typing import Any, Final

_SHOWN: Final = 5
_TISSUE, _STANDS_OUT, _GLASS = "·", "#", " "


def evidence_text(found: dict[str, Any]) -> str:
    """The finding, a map of the tissue, and the strongest cells; none of them when nothing stands out."""
    if not found["stands_out"]:
        return f"{found['finding']} {found['caption']}"
    by_name = {cell["cell"]: cell for cell in found["cells"]}
    lines = [found["finding"], *_map_of(found), ""]
    for name in found["strongest"][:_SHOWN]:
        cell = by_name[name]
        tiles = "1 tile" if cell["tiles"] == 1 else f"{cell['tiles']} tiles"
        lines.append(
            f"{name}: support falls by {cell['drop']:.2f} (control {cell['control']:z.2f}), at x {cell['x']:.0f}, "
            f"y {cell['y']:.0f}, {cell['width']:.0f} × {cell['height']:.0f} px of level 0, {tiles}"
        )
    return "\n".join([*lines, found["caption"]])


def _map_of(found: dict[str, Any]) -> list[str]:
    grid = [[_GLASS] * found["columns"] for _ in range(found["rows"])]
    for cell in found["cells"]:
        row, column = cell["cell"].rpartition("_")[2][1:].split("c")
        grid[int(row)][int(column)] = _STANDS_OUT if cell["stands_out"] else _TISSUE
    return [" ".join(row) for row in grid]
