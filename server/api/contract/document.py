"""The OpenAPI document: what FastAPI reads off the routes, with errors, keys, headers and event streams added.

OpenAPI 3.2 has words for streams of events (`itemSchema`), and few tools read it yet; those for 3.1 read the same
document without these words (docs/decisions/0038).
"""

import copy
from collections.abc import Sequence
from typing import Any, Literal, get_args

from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from encoders.familiarity import FamiliarityVerdict
from encoders.types import MppSource
from model_store.errors import EyepieceError
from server.api.contract.case_events import CASE_EVENT_SCHEMAS, CaseAnswers, CaseBegun, CaseNotice, CaseToken
from server.api.contract.chat_answers import ChatCompletion, ChatCompletionChunk
from server.api.contract.errors import (
    OF_EVERY_CONNECTION,
    OF_EVERY_JSON_BODY,
    OF_EVERY_KEYED_ROUTE,
    OF_EVERY_ROUTE,
    OpenAIError,
    Problem,
    error_examples,
    may_raise,
    write_errors,
)
from server.api.contract.events import (
    EVENT_SCHEMAS,
    ITEM_SCHEMA,
    AnswerNotice,
    AnswerToken,
    AreaDrop,
    EncodeProgress,
    EvidenceBegun,
    EvidenceProgress,
    ImportDone,
    ImportIncomplete,
    ImportProgress,
    SlideReady,
    StreamError,
)
from server.api.contract.headers import (
    ANSWER_HEADERS,
    RATE_LIMIT,
    header_parameters,
    header_references,
    request_headers,
)
from server.api.contract.report_events import REPORT_EVENT_SCHEMAS, ReportBegun, ReportToken, WrittenSection
from server.api.contract.upload_form import UPLOAD_SCHEMAS
from server.api.dicom_json import DICOM_SCHEMAS
from server.api.routes.chat import speaks_openai
from server.api.routes.feedback import DamagedFeedback
from server.api.routes.health import ReadinessStatus
from server.api.routes.keyed_route import SCOPE_OF_OPERATION
from server.errors import InvalidRequest
from server.flow.show_levels import LevelsFormat
from server.identity.purpose_of_use import PURPOSE_HEADER
from server.slides.feedback import Verdict
from server.slides.public_levels import CellKind, LevelsGeoJson, SlideLevels
from server.slides.public_places import SlidePlaces
from server.slides.public_slide import Status
from server.slides.slide_record import Priority
from server.upkeep.readiness import Capability

Version = Literal["3.1", "3.2"]
_VERSIONS: dict[Version, str] = {"3.1": "3.1.1", "3.2": "3.2.0"}
# No route returns them as they are: streams and errors are made of them.
_MORE_SHAPES: tuple[type[BaseModel], ...] = (
    Problem,
    OpenAIError,
    ChatCompletion,
    ChatCompletionChunk,
    AnswerNotice,
    AnswerToken,
    CaseBegun,
    CaseNotice,
    CaseToken,
    CaseAnswers,
    ReportBegun,
    ReportToken,
    WrittenSection,
    StreamError,
    EvidenceBegun,
    EvidenceProgress,
    AreaDrop,
    EncodeProgress,
    SlideReady,
    ImportProgress,
    ImportDone,
    ImportIncomplete,
    SlideLevels,
    LevelsGeoJson,
    SlidePlaces,
    DamagedFeedback,
)
_CHOICES: dict[str, Any] = {
    "SlideStatus": Status,
    "MppSource": MppSource,
    "Priority": Priority,
    "Verdict": Verdict,
    "FamiliarityVerdict": FamiliarityVerdict,
    "Capability": Capability,
    "CellKind": CellKind,
    "LevelsFormat": LevelsFormat,
    "ReadinessStatus": ReadinessStatus,
}
_NAMES = {get_args(choice): name for name, choice in _CHOICES.items()}
# A floating-point number cannot tell it from the next.
_LARGEST_INTEGER = 2**63 - 1
_KEY, _TOKEN = "apiKey", "token"
_KEY_SCHEME = {
    "type": "http",
    "scheme": "bearer",
    "description": "An API key, made by the operator with `eyepiece keys create --tenant NAME` and sent as "
    "`Authorization: Bearer eyp_…`. Every slide and conversation belongs to the key's tenant and does not exist for "
    "others. A server that listens on a loopback address alone takes requests without a key until the first one is "
    "made; everything belongs to the tenant `default` then. A key has all scopes or some; what a route needs stands "
    "beside it. Without it the answer is 403 `insufficient_scope`.",
}
_TOKEN_SCHEME = {
    "type": "http",
    "scheme": "bearer",
    "bearerFormat": "JWT",
    "description": "A token of an identity provider that this server's operator has named. Its claims say which tenant "
    "and which scopes it has.",
}
DESCRIPTION = """Ask questions about whole-slide images. **Research use only, not a medical device.**

Upload a slide, follow its events until it is `ready`, then ask; answers stream. A slide's id is the SHA-256 of its
bytes, so that uploading it twice changes nothing. Sizes are bytes, coordinates are pixels of level 0 (the finest),
resolutions are µm per pixel, times are RFC 3339.

Errors are `application/problem+json` (RFC 9457): decide by `code`, which is stable, and show `detail` to people. Under
`/v1/chat/completions` and `/v1/models` they have OpenAI's shape instead. Where waiting helps, `Retry-After` says how
many seconds. Clients must ignore fields that they do not know: a release may add some."""
TAGS = [
    {"name": "slides", "description": "Upload slides, follow their encoding, look at and delete them."},
    {"name": "webhooks", "description": "What the operator's receivers of events were told, and what not."},
    {"name": "uploads", "description": "Upload a slide in pieces (tus 1.0), and go on where the line broke."},
    {"name": "dicomweb", "description": "Slides as DICOM: sent (STOW-RS), searched (QIDO-RS), retrieved (WADO-RS)."},
    {"name": "imports", "description": "Pull slides from DICOM archives that the operator has named."},
    {"name": "regions", "description": "Draw regions on a slide, to ask about them."},
    {"name": "questions", "description": "Ask about a slide, follow up, forget."},
    {"name": "cases", "description": "Slides that belong together, and a question to each of them."},
    {"name": "reports", "description": "Drafts of several sections, kept, and read as JSON, text, PDF or FHIR."},
    {"name": "evidence", "description": "On which tissue an answer rests."},
    {"name": "feedback", "description": "Judge an answer; export what was judged."},
    {"name": "openai", "description": "The same questions for clients that speak OpenAI's API."},
    {"name": "usage", "description": "What the tenant has used of its quotas, and what a credential allows."},
    {"name": "health", "description": "For load balancers and Prometheus; no key is asked for."},
]


def operation_id(route: APIRoute) -> str:
    """The function's name in camel case; what generators make of it is right in each language."""
    first, *others = route.name.split("_")
    return first + "".join(word.capitalize() for word in others)


class DocumentedAPI(FastAPI):
    """FastAPI with the whole document; `needs_key` says whether no request may come without a key, `takes_tokens`
    whether there are identity providers."""

    def __init__(self, *, needs_key: bool, takes_tokens: bool, **options: Any) -> None:
        super().__init__(
            description=DESCRIPTION, openapi_tags=TAGS, generate_unique_id_function=operation_id, **options
        )
        self._ways_in = [_KEY] + [_TOKEN] * takes_tokens + [""] * (not needs_key)
        self._documents: dict[Version, dict[str, Any]] = {}

    def take(self, router: APIRouter) -> None:
        """Serve the router's routes, the very same that other applications of this process serve: `include_router`
        makes each of them anew for every application, and looks an address up twice."""
        for route in router.routes:
            if isinstance(route, APIRoute):
                route.unique_id = operation_id(route)
        self.router.routes.extend(router.routes)

    def openapi(self) -> dict[str, Any]:
        """The document of OpenAPI 3.2."""
        return self.document("3.2")

    def document(self, version: Version) -> dict[str, Any]:
        """The document in a version's words; made once."""
        if not self._documents:
            whole = _completed(super().openapi(), self._ways_in)
            self._documents = {"3.2": whole, "3.1": _without_item_schemas(whole)}
        return self._documents[version]


def _completed(document: dict[str, Any], ways_in: Sequence[str]) -> dict[str, Any]:
    """Add all that FastAPI does not know; a way in is the name of a security scheme, empty for none."""
    document["openapi"] = _VERSIONS["3.2"]
    components = document["components"]
    schemas: dict[str, Any] = components["schemas"]
    for name in ("HTTPValidationError", "ValidationError"):  # FastAPI's own; ours are problems
        schemas.pop(name, None)
    schemas |= (
        _more_shapes() | EVENT_SCHEMAS | CASE_EVENT_SCHEMAS | REPORT_EVENT_SCHEMAS | UPLOAD_SCHEMAS | DICOM_SCHEMAS
    )
    meanings: dict[str, str] = {}
    for path, operations in document["paths"].items():
        for operation in operations.values():
            meanings |= _complete(operation, path, ways_in)
    for schema in schemas.values():
        _tidy(schema)
    schemas |= {name: {"type": "string", "enum": list(get_args(choice))} for name, choice in _CHOICES.items()}
    components["schemas"] = dict(sorted(schemas.items()))
    components["headers"] = ANSWER_HEADERS
    components["parameters"] = header_parameters()
    components["examples"] = error_examples(meanings)
    schemes = {_KEY: _KEY_SCHEME, _TOKEN: _TOKEN_SCHEME}
    components["securitySchemes"] = {name: schemes[name] for name in ways_in if name}
    return document


def _complete(operation: dict[str, Any], path: str, ways_in: Sequence[str]) -> dict[str, str]:
    """Add to an operation what no route says for itself; the codes of its errors, and what each means."""
    more: tuple[type[EyepieceError], ...] = OF_EVERY_ROUTE
    responses: dict[str, Any] = operation["responses"]
    if "HTTPValidationError" in str(responses.get("422")):  # FastAPI's words for what we call InvalidRequest
        del responses["422"]
        more += (InvalidRequest,)
    operation["summary"] = operation["summary"].capitalize()
    operation["security"] = []
    if path.startswith("/v1/"):
        more += OF_EVERY_KEYED_ROUTE
        scope = operation.pop(SCOPE_OF_OPERATION)
        operation["parameters"] = [*operation.get("parameters", ()), *request_headers(PURPOSE_HEADER)["parameters"]]
        operation["security"] = [{way: [scope] if scope else []} if way else {} for way in ways_in]
    if "application/json" in operation.get("requestBody", {}).get("content", {}):
        more += OF_EVERY_JSON_BODY
    meanings = write_errors(responses, may_raise(*more), openai=speaks_openai(path))
    meanings |= write_errors(responses, may_raise(*OF_EVERY_CONNECTION), openai=False)
    operation["responses"] = dict(sorted(responses.items()))
    for response in responses.values():
        limits = RATE_LIMIT if path.startswith("/v1/") else ()
        response.setdefault("headers", {}).update(header_references("X-Request-Id", *limits))
        if response["description"] == "Successful Response":  # FastAPI's
            (content,) = response["content"].values()
            response["description"] = f"`{content['schema']['$ref'].split('/')[-1]}`."
    for parameter in operation.get("parameters", ()):
        if "schema" in parameter:
            _tidy(parameter["schema"])
            parameter["schema"].pop("description", None)  # stands beside it
    return meanings


def _more_shapes() -> dict[str, Any]:
    _, found = models_json_schema(
        [(shape, "serialization") for shape in _MORE_SHAPES], ref_template="#/components/schemas/{model}"
    )
    shapes: dict[str, Any] = found["$defs"]
    for shape in shapes.values():
        for field in shape.get("properties", {}).values():
            if field.get("default", ...) is None:  # a field that may be absent, which is not null then
                del field["default"]
    return shapes


def _tidy(schema: Any) -> None:
    """Right what FastAPI writes of a schema: every field's name repeated as its title, and choices where they are used,
    of which generators make types like SlideMppSourceType0; and bounds of whole numbers."""
    if isinstance(schema, list):
        for it in schema:
            _tidy(it)
    elif isinstance(schema, dict):
        schema.pop("title", None)
        if schema.get("type") == "integer":  # FastAPI writes bounds as floating-point numbers
            for bound in {"minimum", "maximum"} & schema.keys():
                schema[bound] = min(int(schema[bound]), _LARGEST_INTEGER)
        name = _NAMES.get(tuple(schema.get("enum", ())))
        if name is not None:
            del schema["type"], schema["enum"]
            schema["$ref"] = f"#/components/schemas/{name}"
        for name, value in schema.items():
            if name == "properties":
                _tidy(list(value.values()))
            elif name in ("items", "anyOf", "oneOf", "allOf", "additionalProperties"):
                _tidy(value)


def _without_item_schemas(document: dict[str, Any]) -> dict[str, Any]:
    """The same in OpenAPI 3.1: a stream is text, and an extension says what its items are."""
    older = copy.deepcopy(document)
    older["openapi"] = _VERSIONS["3.1"]
    for operations in older["paths"].values():
        for operation in operations.values():
            for response in operation["responses"].values():
                for stream in response.get("content", {}).values():
                    if ITEM_SCHEMA not in stream:
                        continue
                    stream[f"x-{ITEM_SCHEMA}"] = stream.pop(ITEM_SCHEMA)
                    stream["schema"] = {"type": "string"}
    return older
