"""Every refusal of a slide or of features says what to do, by its words: a hospital's engineer has nothing else."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
REFUSALS = {
    "UnsupportedFormat",
    "UnreadableSlide",
    "MissingMpp",
    "ResolutionTooLow",
    "NoTissue",
    "SlideTooLarge",
    "UnusableFeatures",
    "ReaderDied",
    "ColorConflict",
    "UnusableChannels",
}
ADVICE = re.compile(
    r"\b(send|upload|export|scan (it|the slide)|give|save (it|them)|extract|make (it|them|the features)|correct"
    r"|ask the operator|unpack|try again|write it|copy it|round them|zero-pad|use gzip|raise"
    r"|tell the operator|stain or scan)\b",
    re.IGNORECASE,
)
# Sentences that are put into refusals by name.
TABLES = ("why_unusable.py", "foreign_files.py")


def sentences(path: Path) -> Iterator[str]:
    """The literal texts that refusals in a file are raised with; what is put into them is "…"."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and getattr(node.func, "id", None) in REFUSALS and node.args:
            yield from literal(node.args[0])
        if path.name in TABLES and isinstance(node, ast.Constant | ast.JoinedStr):
            text = "".join(literal(node))
            if re.match(r"(This|The|Two|Files) [^.]*\. [A-Z]", text):
                yield text


def literal(node: ast.expr) -> Iterator[str]:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.JoinedStr):
        parts = [it.value if isinstance(it, ast.Constant) else "…" for it in node.values]
        yield "".join(str(part) for part in parts)


def test_every_refusal_says_what_to_do() -> None:
    found = [
        (str(path.relative_to(ROOT)), sentence)
        for folder in ("encoders", "server/uploads", "server/flow", "server/encoding")
        for path in sorted((ROOT / folder).rglob("*.py"))
        for sentence in sentences(path)
    ]
    without = [it for it in found if not ADVICE.search(it[1]) and not it[1].endswith("…")]

    assert len(found) > 80
    assert without == []
