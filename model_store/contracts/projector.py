"""The kinds of projector, from a slide's rows to the language model's space; the vLLM plugin has them.

A projector whose result is to be cached belongs to the slide stage: it runs in the worker, its weights are part of the
encoder id, and what is left to do here is "none".
"""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from model_store.contracts.fields import Positive, Table


class MlpProjector(Table):
    """LLaVA's two linear layers around an exact GELU; rows narrower than `width` are padded with zeros on the right."""

    # The plugin's word for it, in the served config.json.
    plugin_type: ClassVar[str] = "mlp2x_gelu"

    kind: Literal["mlp"]
    width: Positive

    def input_width(self, row_width: int) -> int:
        """Columns that it reads; raises ValueError for rows that are wider."""
        if row_width > self.width:
            raise ValueError(f"the rows are {row_width} wide, more than the projector's {self.width}")
        return self.width


class NoProjector(Table):
    """Rows that are as wide as the language model and go into it as they are."""

    plugin_type: ClassVar[str] = "identity"

    kind: Literal["none"]

    def input_width(self, row_width: int) -> int:
        """As wide as the rows, which must be the language model's hidden size."""
        return row_width


ProjectorSpec = Annotated[MlpProjector | NoProjector, Field(discriminator="kind")]
