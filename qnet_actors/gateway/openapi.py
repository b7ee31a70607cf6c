"""OpenAPI: schemas from the structs of the API, problems from the table of codes."""

from __future__ import annotations

import html
from typing import Any, Final

import msgspec
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from qnet_actors.gateway import schema
from qnet_actors.gateway.problems import PROBLEM_TYPE
from qnet_actors.gateway.submission import JSON_TYPE, MSGPACK_TYPE, JsonSubmission
from qnet_actors.gateway.waits import WAIT_TARGETS
from qnet_actors.wire.codes import Code

_REF: Final = "#/components/schemas/{name}"

SUBMIT_BODY: Final[dict[str, Any]] = {
    "required": True,
    "description": "Signed transactions in wire bytes, see docs/reference/wire.md.",
    "content": {
        MSGPACK_TYPE: {
            "schema": {
                "type": "string",
                "format": "binary",
                "description": "The wire bytes of one transaction, or a MessagePack array of byte "
                "strings, each the wire bytes of one.",
            }
        },
        JSON_TYPE: {"schema": {"$ref": _REF.format(name="JsonSubmission")}},
    },
}

SUBMIT_PARAMETERS: Final[list[dict[str, Any]]] = [
    {
        "name": "wait",
        "in": "query",
        "required": False,
        "description": "Answer only when the transactions have come this far.",
        "schema": {"type": "string", "enum": list(WAIT_TARGETS)},
    },
    {
        "name": "timeout_ms",
        "in": "query",
        "required": False,
        "description": "How long to wait; the gateway bounds it.",
        "schema": {"type": "integer", "minimum": 0},
    },
]


def answers(views: dict[int, tuple[type, ...]], *codes: Code) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route: what it answers, and the refusals worth naming."""
    responses: dict[int | str, dict[str, Any]] = {}
    for status, types in views.items():
        references = [{"$ref": _REF.format(name=type_.__name__)} for type_ in types]
        shape = references[0] if len(references) == 1 else {"oneOf": references}
        responses[status] = {"description": "Done", "content": {JSON_TYPE: {"schema": shape}}}
    for code in codes:
        known = responses.get(code.http_status)
        if known is not None:
            known["description"] += f"; {code.label}"
            continue
        responses[code.http_status] = {
            "description": code.label,
            "content": {PROBLEM_TYPE: {"schema": {"$ref": _REF.format(name="Problem")}}},
        }
    responses["default"] = {
        "description": "A problem document",
        "content": {PROBLEM_TYPE: {"schema": {"$ref": _REF.format(name="Problem")}}},
    }
    return responses


def _schemas() -> dict[str, Any]:
    types = [
        value
        for value in vars(schema).values()
        if isinstance(value, type) and issubclass(value, schema.View) and value is not schema.View
    ]
    _, components = msgspec.json.schema_components([*types, JsonSubmission], ref_template=_REF)
    problem = components["Problem"]["properties"]
    problem["code"] = {
        "type": "string",
        "enum": [code.label for code in Code],
        "description": "\n".join(
            f"- `{code.label}` ({code.http_status}): {code.description}" for code in Code
        ),
    }
    return components


def openapi_document(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document of the application."""
    document = get_openapi(
        title=app.title, version=app.version, description=app.description, routes=app.routes
    )
    for operations in document["paths"].values():
        for operation in operations.values():
            operation["responses"].pop("422", None)
    document["components"] = {"schemas": dict(sorted(_schemas().items()))}
    return document


_STYLE: Final = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}"
    "code{font-size:.95em}table{border-collapse:collapse}"
    "td,th{border:1px solid #8888;padding:.2rem .6rem;text-align:left;vertical-align:top}"
    "summary{cursor:pointer}"
)


def docs_page(document: dict[str, Any]) -> str:
    """The document as a page that needs no script and nothing from elsewhere."""
    escape = html.escape
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8>",
        "<meta name=viewport content='width=device-width'>",
        f"<title>{escape(document['info']['title'])}</title><style>{_STYLE}</style>",
        f"<h1>{escape(document['info']['title'])}</h1>",
        f"<p>{escape(document['info']['description'])}</p>",
        "<p>The same for programs: <a href='/openapi.json'>/openapi.json</a></p>",
        "<h2>Routes</h2>",
    ]
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            parts.append(f"<h3><code>{method.upper()} {escape(path)}</code></h3>")
            parts.append(f"<p>{escape(operation.get('summary', ''))}.</p>")
            if "description" in operation:
                parts.append(f"<p>{escape(operation['description'])}</p>")
            parts.append(_parameters(operation.get("parameters", [])))
            parts.append(_responses(operation["responses"]))
    parts.append("<h2>Codes</h2><table><tr><th>code<th>HTTP<th>meaning")
    parts += [
        f"<tr><td><code>{code.label}</code><td>{code.http_status}<td>{escape(code.description)}"
        for code in Code
    ]
    parts.append("</table><h2>Objects</h2>")
    for name, shape in document["components"]["schemas"].items():
        body = escape(msgspec.json.format(msgspec.json.encode(shape), indent=2).decode())
        parts.append(
            f"<details id='{escape(name)}'><summary><code>{escape(name)}</code></summary>"
            f"<pre>{body}</pre></details>"
        )
    return "".join(parts) + "</html>"


def _parameters(parameters: list[dict[str, Any]]) -> str:
    if not parameters:
        return ""
    rows = [
        f"<tr><td><code>{html.escape(item['name'])}</code><td>{html.escape(item['in'])}"
        f"<td>{html.escape(item.get('description', ''))}"
        for item in parameters
    ]
    return "<table><tr><th>parameter<th>in<th>" + "".join(rows) + "</table>"


def _responses(responses: dict[str, Any]) -> str:
    rows = [
        f"<tr><td>{html.escape(status)}<td>{html.escape(response['description'])}"
        for status, response in responses.items()
        if status != "default"
    ]
    return "<table><tr><th>status<th>" + "".join(rows) + "</table>"
