"""A point in level-0 pixels as JSON has it. The document calls it an array of two numbers and not a tuple
(`prefixItems`), which half of the programs that read such documents take for something else."""

from typing import Annotated, Any

from pydantic import WithJsonSchema


def _two(numbers: str) -> dict[str, Any]:
    return {"type": "array", "items": {"type": numbers}, "minItems": 2, "maxItems": 2}


# (x, y)
WholePoint = Annotated[tuple[int, int], WithJsonSchema(_two("integer"))]
Point = Annotated[tuple[float, float], WithJsonSchema(_two("number"))]
