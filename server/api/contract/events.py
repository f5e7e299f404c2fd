"""Server-sent events of the OpenAPI document: what each event's `data` holds, and which events a stream is made of.

OpenAPI 3.2 describes a stream by its items (`itemSchema`). An item of `text/event-stream` is an object of the event's
fields; `data` is text, and what that text holds as JSON is its `contentSchema`.
"""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from server.asking.scope import Scope
from server.slides.slide_record import SlideError

EVENT_STREAM = "text/event-stream"
JSON_LINES = "application/jsonl"
# Tools of OpenAPI 3.1, which has no itemSchema, leave a field of this name alone.
ITEM_SCHEMA = "itemSchema"


class AnswerToken(BaseModel):
    """Data of the event `token`: the next piece of the answer."""

    text: str = Field(description="Text to append to what came before.", examples=["The "])


class AnswerDoubt(BaseModel):
    """What is doubtful about an answer that is given all the same."""

    code: str = Field(
        description="Stable code: one of the slide's warnings for the model that answers (such as `tiles_thinned`: it "
        "was given some of the tiles, not all), `beyond_trained_turns`, `turns_left_out`, `model_doubted`, "
        "`turns_of_another_scope`, `region_not_evaluated` or `choices_unlikely`. Releases may add codes.",
        examples=["beyond_trained_turns"],
    )
    detail: str = Field(description="What is doubtful and why; show it to users.")


class AnswerNotice(BaseModel):
    """Data of the event `notice`, the first of every answer: what must be known to read it."""

    notice: str = Field(description="Research-use notice and the model's limits; show it before the answer.")
    model: str = Field(description="The model that answers.", examples=["demo"])
    encoder_id: str = Field(description="Identifies everything that the slide's embedding depends on.")
    scope: Scope = Field(description="What of the slide it is about; show it beside the answer.")
    warnings: list[AnswerDoubt] = Field(description="What is doubtful about this answer; empty when nothing is.")


class ImportProgress(BaseModel):
    """Data of the event `progress` of an import."""

    done: int = Field(description="Instances that have come.", examples=[3])
    total: int | None = Field(description="Instances that the archive has.", examples=[7])
    size_bytes: int = Field(description="Bytes that have come.", examples=[734003200])


class ImportDone(BaseModel):
    """Data of the event `done` of an import."""

    slide_id: str = Field(description="The slide that it became.", examples=["5e" * 32])


class ImportIncomplete(BaseModel):
    """Data of the event `incomplete` of an import."""

    missing: list[str] = Field(description="What is known to be missing, in sentences.")


class EvidencePlace(BaseModel):
    """A cell of the tissue: its rectangle in level-0 pixels."""

    cell: str = Field(
        description="Its name, by row and column of the grid; of a cell of a cell both names, with `_` between.",
        examples=["r6c5"],
    )
    x: float = Field(examples=[3125.0])
    y: float = Field(examples=[2870.5])
    width: float = Field(examples=[504.0])
    height: float = Field(examples=[448.0])
    tiles: int = Field(description="Tiles whose centre lies in it.", examples=[7])


class EvidenceChoice(BaseModel):
    """An answer that a closed question has."""

    choice: str = Field(examples=["Yes"])
    probability: float = Field(
        ge=0, le=1, description="Its share of the probability of all choices. It is not calibrated: show no per cent."
    )


class ChangedChoice(EvidenceChoice):
    """The same, and its share where an area is left out."""

    without: float = Field(ge=0, le=1, description="Its share without the area.")


class EvidenceCell(EvidencePlace):
    """A cell, and what it means to the answer."""

    drop: float = Field(
        description="By how many nats the answer's log-likelihood falls: the mean over the areas that hold the cell.",
        examples=[3.21],
    )
    control: float = Field(description="The same where as many tiles from anywhere are left out.", examples=[0.02])
    stands_out: bool = Field(description="Whether `drop` is beyond `threshold`.")
    choices: list[ChangedChoice] = Field(
        description="Of a closed answer, the choices without the cell and those around it; else empty."
    )


class EvidenceOf(BaseModel):
    """Whose evidence it is."""

    conversation_id: str = Field(description="The conversation of the answer.")
    turn: int = Field(description="Number of the answer's turn.", examples=[1])
    question: str
    answer: str
    model: str = Field(description="The model that answered.", examples=["demo"])
    encoder_id: str = Field(description="Identifies everything that the slide's embedding depends on.")
    scope: Scope = Field(description="What of the slide the answer is about.")
    notice: str = Field(description="Research-use notice and the model's limits; show it to users.")
    warnings: list[AnswerDoubt] = Field(description="What is doubtful about the slide or region.")
    caption: str = Field(description="How to read the numbers; show it beside them.")
    parent: str | None = Field(description="The cell that was looked at again; null for all of the tissue.")
    rows: int = Field(description="Rows of the grid.", examples=[8])
    columns: int = Field(description="Columns of the grid.", examples=[8])


class EvidenceBegun(EvidenceOf):
    """Data of the event `evidence`, the first."""

    cells: list[EvidencePlace] = Field(description="Cells with tissue, row by row.")


class AreaDrop(BaseModel):
    """Data of the event `cell`: the area around a cell was left out."""

    cell: str = Field(description="The cell in the middle of the area.", examples=["r6c5"])
    drop: float = Field(description="By how many nats the answer's log-likelihood falls without the area.")
    choices: list[ChangedChoice]


class EvidenceCosts(BaseModel):
    """What it cost."""

    requests: int = Field(description="Requests to the language model.", examples=[108])
    prefill_tokens: int = Field(description="Tokens of their prompts.", examples=[12960])
    rows_ms: float = Field(description="Milliseconds until a worker had made all rows.")
    total_ms: float = Field(description="Milliseconds until the end.")


class Evidence(EvidenceOf):
    """Data of the event `done`, and the body with `stream: false`: where an answer has its support.

    Colour nothing unless `stands_out`, and scale no drop to the largest one: small ones are noise."""

    cells: list[EvidenceCell] = Field(description="Cells with tissue, row by row.")
    stands_out: bool = Field(description="Whether any cell does.")
    strongest: list[str] = Field(description="Cells that stand out, the strongest first.", examples=[["r6c5"]])
    threshold: float = Field(description="What a drop has to be beyond; it is made of all controls.", examples=[0.5])
    finding: str = Field(description="In words.", examples=["No part stands out."])
    log_likelihood: float = Field(description="Of the answer as it was given, in nats.", examples=[-0.13])
    choices: list[EvidenceChoice] = Field(description="Of a closed answer; else empty.")
    costs: EvidenceCosts


class EvidenceProgress(BaseModel):
    """Data of the event `progress` of evidence."""

    stage: str = Field(
        description="`embeddings`: files of rows that a worker made; `scores`: cells that the model was asked about.",
        examples=["scores"],
    )
    done: int = Field(ge=0, examples=[12])
    total: int = Field(ge=0, examples=[51])


class StreamError(BaseModel):
    """Data of the event `error`, which ends a stream that began well."""

    code: str = Field(description="As in `Problem`.", examples=["language_model_failed"])
    detail: str = Field(description="What happened and what to do.")


class EncodeProgress(BaseModel):
    """Data of the event `progress`: how far the encoding is."""

    stage: str = Field(
        description="The current stage, in this order: `tile`, `encode_tiles`, `encode_slide`; of models that read "
        "regions `find_regions`, `encode_regions`, `encode_slide`. Models may add stages.",
        examples=["encode_tiles"],
    )
    done: int = Field(ge=0, description="Of `total`.", examples=[1200])
    total: int = Field(ge=0, description="Tiles, regions, or steps of the stage.", examples=[4810])


class SlideReady(BaseModel):
    """Data of the event `ready`, the last one: questions can be asked. It is empty."""

    model_config = ConfigDict(extra="forbid")


def event(name: str, data: str, about: str, *, resumable: bool = False) -> dict[str, Any]:
    """The schema of a named event whose data is JSON of the shape `data`."""
    properties = {"event": {"const": name}, "data": _json_text(data)}
    if resumable:
        properties["id"] = {"type": "string", "description": "Send it as `Last-Event-ID` to go on behind this event."}
    return {"type": "object", "description": about, "required": ["event", "data"], "properties": properties}


def one_of(about: str, *names: str) -> dict[str, Any]:
    """The schema of a stream's items, each of which is one of these."""
    return {"description": about, "oneOf": [{"$ref": f"#/components/schemas/{name}"} for name in names]}


def stream_of(item: str) -> Mapping[str, Any]:
    """The content of a response that streams items of a schema."""
    return {EVENT_STREAM: {ITEM_SCHEMA: {"$ref": f"#/components/schemas/{item}"}}}


def lines_of(item: str) -> Mapping[str, Any]:
    """The content of a response of JSON lines, each an item of a schema."""
    return {JSON_LINES: {ITEM_SCHEMA: {"$ref": f"#/components/schemas/{item}"}}}


def _json_text(schema: str) -> dict[str, Any]:
    reference = {"$ref": f"#/components/schemas/{schema}"}
    return {"type": "string", "contentMediaType": "application/json", "contentSchema": reference}


EVENT_SCHEMAS: dict[str, Any] = {
    "NoticeEvent": event("notice", "AnswerNotice", "Whose answer it will be, and what to know; the first event."),
    "TokenEvent": event("token", "AnswerToken", "Text of the answer, as it is written."),
    "DoneEvent": event("done", "Answer", "The whole answer; the last event."),
    "ErrorEvent": event("error", "StreamError", "The stream broke off; the last event."),
    "QuestionEvent": one_of(
        "An event of an answer: `notice`, `token` …, then `done` or `error`.",
        "NoticeEvent",
        "TokenEvent",
        "DoneEvent",
        "ErrorEvent",
    ),
    "EvidenceBegunEvent": event(
        "evidence", "EvidenceBegun", "Whose evidence it will be, and its cells; the first event."
    ),
    "EvidenceProgressEvent": event("progress", "EvidenceProgress", "How far it is."),
    "AreaDropEvent": event("cell", "AreaDrop", "What leaving an area out takes from the answer; in no order."),
    "EvidenceDoneEvent": event("done", "Evidence", "All of it; the last event."),
    "EvidenceEvent": one_of(
        "An event of evidence: `evidence`, `progress` and `cell` …, then `done` or `error`.",
        "EvidenceBegunEvent",
        "EvidenceProgressEvent",
        "AreaDropEvent",
        "EvidenceDoneEvent",
        "ErrorEvent",
    ),
    "ProgressEvent": event("progress", "EncodeProgress", "How far the encoding is.", resumable=True),
    "ReadyEvent": event("ready", "SlideReady", "The slide is ready; the last event.", resumable=True),
    "FailedEvent": event(
        "failed", SlideError.__name__, "The slide could not be encoded; the last event.", resumable=True
    ),
    "SlideEvent": one_of(
        "An event of a slide: `progress` …, then `ready` or `failed`; `error` when the server cannot go on, after "
        "which the client follows again.",
        "ProgressEvent",
        "ReadyEvent",
        "FailedEvent",
        "ErrorEvent",
    ),
    "ImportProgressEvent": event("progress", "ImportProgress", "How much has come.", resumable=True),
    "ImportDoneEvent": event("done", "ImportDone", "The slide is made; the last event.", resumable=True),
    "ImportIncompleteEvent": event(
        "incomplete", "ImportIncomplete", "The archive has not all of it; the last event.", resumable=True
    ),
    "ImportFailedEvent": event("failed", SlideError.__name__, "It failed; the last event.", resumable=True),
    "ImportEvent": one_of(
        "An event of an import: `progress` …, then `done`, `incomplete` or `failed`; `error` when the server cannot go "
        "on, after which the client follows again.",
        "ImportProgressEvent",
        "ImportDoneEvent",
        "ImportIncompleteEvent",
        "ImportFailedEvent",
        "ErrorEvent",
    ),
    "FeedbackLine": one_of("A line of an export.", "Feedback", "DamagedFeedback"),
    "ChatCompletionChunkEvent": {
        "type": "object",
        "description": "A chunk of the answer, or an error that ends it.",
        "required": ["data"],
        "properties": {
            "data": {
                "type": "string",
                "contentMediaType": "application/json",
                "contentSchema": {
                    "anyOf": [
                        {"$ref": "#/components/schemas/ChatCompletionChunk"},
                        {"$ref": "#/components/schemas/OpenAIError"},
                    ]
                },
            }
        },
    },
    "ChatCompletionDoneEvent": {
        "type": "object",
        "description": "The end of the stream.",
        "required": ["data"],
        "properties": {"data": {"const": "[DONE]"}},
    },
    "ChatCompletionEvent": {
        "description": "An event of a streamed chat completion; none has a name.",
        "anyOf": [
            {"$ref": "#/components/schemas/ChatCompletionDoneEvent"},
            {"$ref": "#/components/schemas/ChatCompletionChunkEvent"},
        ],
    },
}
