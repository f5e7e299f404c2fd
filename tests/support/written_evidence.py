"""Evidence as `POST …/evidence` streams it, written down: four cells of a slide, of which the right ones stand out."""

import json
from typing import Any

CAPTION = "Leaving a cell out lowers the support for this answer by so much. Not a segmentation."
# Drop in nats and control, by cell.
_DROPS = {"r0c0": (0.02, 0.01), "r0c1": (1.5, 0.03), "r1c0": (-0.1, 0.02), "r1c1": (5.2, 0.05)}


def evidence_events(slide: dict[str, Any], asked: dict[str, Any], stands_out: bool) -> str:
    """The body of the answer."""
    cells = [_cell(slide, name) for name in _DROPS]
    known = {
        "conversation_id": asked["conversation_id"],
        "turn": asked["turn"],
        "question": "Where is the necrosis?",
        "answer": "In the lower right quadrant.",
        "model": "demo",
        "encoder_id": slide["encoder_id"],
        "scope": {"kind": "slide"},
        "notice": "Research use only.",
        "warnings": [],
        "caption": CAPTION,
        "parent": asked["cell"],
        "rows": 2,
        "columns": 2,
    }
    scale = 1.0 if stands_out else 0.05
    scored = [_scored(cell, scale, stands_out) for cell in cells]
    strongest = [it["cell"] for it in sorted(scored, key=lambda it: -it["drop"]) if it["stands_out"]]
    found = {
        "stands_out": stands_out,
        "strongest": strongest,
        "threshold": 0.41,
        "finding": f"{len(strongest)} of 4 cells stand out." if strongest else "No part stands out.",
        "log_likelihood": -0.13,
        "choices": [],
        "costs": {"requests": 9, "prefill_tokens": 900, "rows_ms": 90, "total_ms": 305},
    }
    events = [("evidence", known | {"cells": cells}), ("progress", {"stage": "scores", "done": 4, "total": 9})]
    events += [("cell", {"cell": it["cell"], "drop": it["drop"], "choices": []}) for it in scored]
    events.append(("done", known | {"cells": scored} | found))
    return "".join(f"event: {name}\ndata: {json.dumps(data)}\n\n" for name, data in events)


def _cell(slide: dict[str, Any], name: str) -> dict[str, Any]:
    row, column = int(name[1]), int(name[3])
    width, height = slide["width"] / 2, slide["height"] / 2
    return {"cell": name, "x": column * width, "y": row * height, "width": width, "height": height, "tiles": 20}


def _scored(cell: dict[str, Any], scale: float, stands_out: bool) -> dict[str, Any]:
    drop, control = _DROPS[cell["cell"]]
    is_strong = stands_out and drop > 1
    return cell | {"drop": scale * drop, "control": control, "stands_out": is_strong, "choices": []}
