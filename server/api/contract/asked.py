"""What a question's body says, whatever it is about: one slide, or each slide of a case."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from server.asking.choices import MOST_CHOICE_CHARS, MOST_CHOICES, ONE_LINE
from server.asking.questions import SamplingOptions
from server.errors import InvalidRequest

# More than white space and control characters, which say nothing to a model.
SAYS_SOMETHING = r"[^\s\x00-\x1f\x7f-\x9f]"

ChoiceText = Annotated[
    str, Field(min_length=1, max_length=MOST_CHOICE_CHARS, json_schema_extra={"pattern": ONE_LINE.pattern})
]
Choices = Annotated[list[ChoiceText], Field(fail_fast=True)]


class AskedRequest(BaseModel):
    """A question, and how it is to be answered."""

    model_config = ConfigDict(extra="forbid")

    question: str = Field(
        description="Plain text; the server's settings limit its length.",
        examples=["What kind of tissue is this?"],
        json_schema_extra={"pattern": SAYS_SOMETHING},
    )
    model: str | None = Field(
        None,
        max_length=64,
        description="The `id` of a model of `GET /v1/models`; the first of them when left out. A conversation may "
        "change it from turn to turn. A slide that is not encoded for it yet is encoded from then on "
        "(`slide_not_ready`).",
        examples=["demo"],
    )
    choices: Choices | None = Field(
        None,
        min_length=2,
        max_length=MOST_CHOICES,
        description="The answer is exactly one of these, the likeliest: none is generated. Each is scored whole behind "
        "the question, which goes to the model as it is, so name them there where the model must know them. "
        "`temperature`, `seed` and `max_tokens` mean nothing beside it and are refused.",
        examples=[["Yes", "No"]],
        json_schema_extra={"uniqueItems": True},
    )
    stream: bool = Field(
        True, description="True: stream server-sent events. False: one JSON object when the answer is complete."
    )
    max_tokens: int | None = Field(
        None, ge=1, le=8192, description="Maximum number of tokens in the answer; by default the model's own limit."
    )
    temperature: float | None = Field(
        None,
        ge=0,
        le=2,
        allow_inf_nan=False,
        description="0 always takes the likeliest token; higher values vary the answer. Defaults to the model's own.",
    )
    seed: int | None = Field(None, ge=-(2**63), le=2**63 - 1, description="Makes the sampling repeatable.")

    @property
    def sampling(self) -> SamplingOptions:
        """How it is to be generated.

        Raises:
            InvalidRequest: it asks for choices and how to generate.
        """
        options = SamplingOptions(max_tokens=self.max_tokens, temperature=self.temperature, seed=self.seed)
        if self.choices is not None and options != SamplingOptions():
            raise InvalidRequest(
                "With choices nothing is generated, they are scored; leave out temperature, seed and max_tokens."
            )
        return options
