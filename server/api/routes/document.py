"""/docs and /openapi.json: the HTTP contract, as a page that loads nothing from anywhere and as a document."""

import re
from html import escape
from typing import Any

import orjson
from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, JSONResponse

from server.api.contract.document import DocumentedAPI, Version
from server.api.routes.keyed_route import KeyedRoute, needs

router = APIRouter(include_in_schema=False, route_class=KeyedRoute)
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
_STYLE = (
    "body{font:16px/1.5 sans-serif;max-width:60em;margin:2em auto;padding:0 1em}"
    "pre{background:#f4f4f4;padding:.8em;overflow:auto;font-size:13px}summary{cursor:pointer;padding:.2em 0}"
    "code{font-size:1em}td{padding:.2em .8em .2em 0;vertical-align:top}td code{overflow-wrap:anywhere}"
)


@router.get("/openapi.json", dependencies=needs(None))
async def openapi_document(request: Request, version: Version = "3.1") -> JSONResponse:
    """The OpenAPI document, by default in the version that most generators of clients read."""
    app: DocumentedAPI = request.app
    return JSONResponse(app.document(version))


@router.get("/docs", dependencies=needs(None))
async def page(request: Request) -> HTMLResponse:
    """The same for people."""
    return HTMLResponse(_page(request.app.openapi()), headers={"Content-Security-Policy": _POLICY})


def _page(document: dict[str, Any]) -> str:
    info, components = document["info"], document["components"]
    operations = [
        _operation(method, path, operation, components)
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
    ]
    schemas = [
        f'<details id="{escape(name)}"><summary><code>{escape(name)}</code> {_text(schema.get("description", ""))}'
        f"</summary>{_json(schema)}</details>"
        for name, schema in components["schemas"].items()
    ]
    headers = [
        f"<dt><code>{escape(name)}</code><dd>{_text(header['description'])}"
        for name, header in components["headers"].items()
    ]
    title = f"{escape(info['title'])} {escape(info['version'])}"
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title><style>{_STYLE}</style>'
        f"<h1>{title}</h1><p>{_text(info['description'])}</p>"
        "<p>The same for programs: <a href=/openapi.json>/openapi.json</a>, and with the events of streams "
        "<a href=/openapi.json?version=3.2>/openapi.json?version=3.2</a>.</p>"
        f"{''.join('<p>' + _text(it['description']) + '</p>' for it in components['securitySchemes'].values())}"
        f"<h2>Routes</h2>{''.join(operations)}<h2>Shapes</h2>{''.join(schemas)}"
        f"<h2>Headers of answers</h2><dl>{''.join(headers)}</dl></html>"
    )


def _operation(method: str, path: str, operation: dict[str, Any], components: dict[str, Any]) -> str:
    told = [f"<p>{_text(operation['description'])}</p>"]
    scopes = [scope for way_in in operation["security"][:1] for scope in next(iter(way_in.values()), [])]
    told += [f"<p>Scope: <code>{escape(scope)}</code></p>" for scope in scopes]
    rows = [_parameter(it, components["parameters"]) for it in operation.get("parameters", ())]
    if rows:
        told.append(f"<table>{''.join(rows)}</table>")
    body = operation.get("requestBody", {}).get("content", {})
    told += [f"<p>Body: {_content(media_type, content)}</p>" for media_type, content in body.items()]
    told.append("<dl>")
    for status, response in operation["responses"].items():
        contents = [_content(*it) for it in response.get("content", {}).items()]
        names = ", ".join(name for name in response["headers"] if name != "X-Request-Id")
        told.append(f"<dt>{status} {' or '.join(contents)}{' with ' if names else ''}{names}")
        told.append(f"<dd>{_text(response['description'])}")
    return (
        f"<details><summary><code>{method.upper()} {escape(path)}</code> {escape(operation['summary'])}</summary>"
        f"{''.join(told)}</dl></details>"
    )


def _parameter(parameter: dict[str, Any], known: dict[str, Any]) -> str:
    if "$ref" in parameter:
        parameter = known[parameter["$ref"].split("/")[-1]]
    examples = parameter["schema"].get("examples", [])
    needed = "" if parameter.get("required") else ", optional"
    return (
        f"<tr><td><code>{escape(parameter['name'])}</code><td>{parameter['in']}{needed}"
        f"<td>{_text(parameter['description'])}<td>{''.join(f'<code>{escape(str(it))}</code>' for it in examples[:1])}"
    )


def _content(media_type: str, content: dict[str, Any]) -> str:
    """A media type, and a link to the shape of what it holds or of each of its events."""
    shape = content.get("schema") or content.get("itemSchema") or {}
    name = escape(shape.get("$ref", "").split("/")[-1])
    link = f' <a href="#{name}">{name}</a>' if name else ""
    return f"<code>{escape(media_type)}</code>{link}"


def _text(text: str) -> str:
    """HTML of the little Markdown that descriptions have: paragraphs, lists, code and bold."""
    told = re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))
    told = re.sub(r"\*\*([^*]+)\*\*", r"<b>\1</b>", told)
    return re.sub(r"(?m)^- ", "<br>– ", told).removeprefix("<br>").replace("\n\n", "<p>")


def _json(value: Any) -> str:
    return f"<pre>{escape(orjson.dumps(value, option=orjson.OPT_INDENT_2).decode())}</pre>"
