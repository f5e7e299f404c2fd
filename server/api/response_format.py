"""OpenAI's `response_format`: JSON that follows a schema of the client's."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from server.asking.answer_schema import AnswerSchema, answer_schema
from server.errors import InvalidRequest


class JsonSchemaFormat(BaseModel):
    """The schema of an answer."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(
        pattern=r"^[A-Za-z0-9_-]{1,64}$",
        description="OpenAI's clients need one; it changes nothing.",
        examples=["report"],
    )
    description: str | None = Field(None, max_length=2_000, description="The model is not shown it.")
    json_schema: dict[str, Any] = Field(
        alias="schema",
        description="A JSON schema whose type is `object`. Taken are `type`, `properties`, `required`, "
        "`additionalProperties: false`, `items`, `minItems`, `maxItems`, `enum`, `const`, `minLength`, `maxLength`, "
        "`minimum` and `maximum` of whole numbers, `anyOf`, and `$ref` into `$defs`; anything else is refused by name, "
        "and so is what is about itself.",
        examples=[{"type": "object", "properties": {"necrosis": {"type": "boolean"}}, "required": ["necrosis"]}],
    )
    strict: bool | None = Field(None, description="Changes nothing: answers always follow the schema.")


class ResponseFormat(BaseModel):
    """`{"type": "json_schema", "json_schema": {"name": …, "schema": …}}`, or text."""

    model_config = ConfigDict(extra="forbid")

    type: str = Field("text", description="`text` or `json_schema`.", examples=["text"])
    json_schema: JsonSchemaFormat | None = None


def wanted_schema(wanted: ResponseFormat | None, *, has_stops: bool) -> AnswerSchema | None:
    """The schema that an answer is to follow, checked; None where it is text.

    Raises:
        InvalidRequest: a format that is not to be had.
    """
    if wanted is None or wanted.type == "text":
        return None
    if wanted.type != "json_schema":
        raise InvalidRequest("response_format must be of the type text or json_schema; send a schema for JSON.")
    if wanted.json_schema is None:
        raise InvalidRequest('response_format of the type json_schema needs {"name": …, "schema": …} of that name.')
    if has_stops:
        raise InvalidRequest("`stop` would break the JSON off; leave it out beside response_format.")
    return answer_schema(wanted.json_schema.json_schema)
