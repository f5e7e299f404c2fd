"""/docs and /openapi.json: the HTTP contract, as a page that loads nothing from anywhere and as a document."""

from html import escape
from typing import Any

import orjson
from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, JSONResponse

from server.api.contract.document import DocumentedAPI, Version
from server.api.routes.keyed_route import KeyedRoute

router = APIRouter(include_in_schema=False, route_class=KeyedRoute)
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
_STYLE = (
    "body{font:16px/1.5 sans-serif;max-width:60em;margin:2em auto;padding:0 1em}"
    "pre{background:#f4f4f4;padding:.8em;overflow:auto;font-size:13px}summary{cursor:pointer;padding:.2em 0}"
    "code{font-size:1em}"
)


@router.get("/openapi.json")
async def openapi_document(request: Request, version: Version = "3.1") -> JSONResponse:
    """The OpenAPI document, by default in the version that most generators of clients read."""
    app: DocumentedAPI = request.app
    return JSONResponse(app.document(version))


@router.get("/docs")
async def page(request: Request) -> HTMLResponse:
    """The same for people."""
    return HTMLResponse(_page(request.app.openapi()), headers={"Content-Security-Policy": _POLICY})


def _page(document: dict[str, Any]) -> str:
    info = document["info"]
    operations = [
        _operation(method, path, operation)
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
    ]
    schemas = [
        f'<details id="{escape(name)}"><summary><code>{escape(name)}</code></summary>{_json(schema)}</details>'
        for name, schema in document["components"]["schemas"].items()
    ]
    title = f"{escape(info['title'])} {escape(info['version'])}"
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title><style>{_STYLE}</style>'
        f"<h1>{title}</h1><p>{escape(info['description'])}</p>"
        "<p>The same for programs: <a href=/openapi.json>/openapi.json</a>. Errors are "
        "<code>application/problem+json</code> with a stable <code>code</code>.</p>"
        f"<h2>Routes</h2>{''.join(operations)}<h2>Shapes</h2>{''.join(schemas)}</html>"
    )


def _operation(method: str, path: str, operation: dict[str, Any]) -> str:
    facts = {name: operation[name] for name in ("parameters", "requestBody", "responses") if name in operation}
    description = escape(operation.get("description", "")).replace("\n\n", "<p>")
    return (
        f"<details><summary><code>{method.upper()} {escape(path)}</code></summary><p>{description}</p>"
        f"{_json(facts)}</details>"
    )


def _json(value: Any) -> str:
    return f"<pre>{escape(orjson.dumps(value, option=orjson.OPT_INDENT_2).decode())}</pre>"
