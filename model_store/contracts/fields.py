"""Types that fields of a manifest share, and the strictness of every table in it."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

Positive = Annotated[int, Field(gt=0)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Rgb = tuple[float, float, float]
Dtype = Literal["float32", "float16", "bfloat16"]
WeightsPath = Annotated[str, StringConstraints(pattern=r"^[a-z0-9_]+/[A-Za-z0-9_-]+\.safetensors$")]
# A row for the language model is 16 bits wide a number; more than these are no slide's.
Rows = Annotated[int, Field(gt=0, le=1_000_000)]


class Table(BaseModel):
    """A table of the manifest: a field that is not known is an error, and nothing changes after it was read."""

    model_config = ConfigDict(frozen=True, extra="forbid")
