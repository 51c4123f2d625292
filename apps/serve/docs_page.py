"""The description of all routes as a page for people, with lines for the shell."""

import json
from collections.abc import Iterator
from html import escape

from apps.serve.openapi_parts import PARAMETERS, RESPONSES, Document


def curl(path: str, method: str, kind: str | None, example: object, address: str, token: bool) -> str:
    """A line for the shell that asks one route.

    Args:
        path: With parameters in braces, which get their examples.
        method: "get" or "post".
        kind: Of the body; None for no body.
        example: The body, where it is JSON.
        address: Of the server, such as "http://127.0.0.1:8501".
        token: Whether the server asks for one, which is taken from `$TOKEN`.

    >>> curl("/v2/models/{name}", "get", None, None, "http://127.0.0.1:8501", False)
    'curl http://127.0.0.1:8501/v2/models/digits'
    """
    for name, parameter in PARAMETERS.items():
        path = path.replace(f"{{{name}}}", str(parameter.get("example")))
    words = ["curl"]
    if token:
        words.append('-H "Authorization: Bearer $TOKEN"')
    if kind == "application/json":
        words.append(f"-d '{json.dumps(example)}'")
    elif kind == "image/jpeg":
        words.append("-H 'Content-Type: image/jpeg' --data-binary @photo.jpg")
    elif kind:
        words.append("-H 'Inference-Header-Content-Length: 0' --data-binary @photo.jpg")
    return " ".join([*words, address + path])


def docs_html(description: Document, address: str, token: bool) -> str:
    """The routes of `document()` as HTML, with lines for the shell that ask this address."""
    parts = [f"<p>{_prose(description['info']['description'])}</p>"]
    if token:
        parts.append("<p>This server asks for a token, in the header <code>Authorization: Bearer</code>.</p>")
    for tag in description["tags"]:
        parts.append(
            f'<h2 id="{tag["name"]}">{escape(tag["name"])}</h2><p class="soft">{_prose(tag["description"])}</p>'
        )
        for path, method, operation in operations(description):
            if operation["tags"] == [tag["name"]]:
                parts.append(_described(path, method, operation, address, token))
    return "\n".join(parts)


def operations(description: Document) -> Iterator[tuple[str, str, Document]]:
    """(path, method, operation) of every route."""
    for path, item in description["paths"].items():
        for method in ("get", "post"):
            if method in item:
                yield path, method, item[method]


def _described(path: str, method: str, operation: Document, address: str, token: bool) -> str:
    shown = [f"<p>{_prose(operation.get('description', ''))}</p>"] if "description" in operation else []
    bodies = operation.get("requestBody", {}).get("content", {None: {}})
    for kind, body in bodies.items():
        examples = body.get("examples") or {"": {"value": body.get("example")}}
        for name, example in examples.items():
            title = name or {"image/jpeg": "the picture file itself", "application/octet-stream": "or"}.get(kind, "")
            shown.append(f"<h4>{escape(title)}</h4>" if title else "")
            line = curl(path, method, kind, example["value"], address, token)
            shown.append(f'<pre tabindex="0">{escape(line)}</pre>')
    rows = []
    for status, response in operation["responses"].items():
        told = RESPONSES[status] if "$ref" in response else response
        rows.append(f"<tr><th>{status}</th><td>{_prose(told['description'])}</td></tr>")
        for content in told.get("content", {}).values():
            if "example" in content:
                text = content["example"] if isinstance(content["example"], str) else json.dumps(content["example"])
                rows.append(f"<tr><th></th><td><code>{escape(text)}</code></td></tr>")
    return (
        f'<details id="{operation["operationId"]}"><summary><b class="{method}">{method.upper()}</b> '
        f"<code>{escape(path)}</code> <span>{escape(operation['summary'])}</span></summary>"
        f"{''.join(shown)}<table>{''.join(rows)}</table></details>"
    )


def _prose(text: str) -> str:
    """Text whose `code` is marked by backticks."""
    parts = escape(text, quote=False).split("`")
    return "".join(f"<code>{part}</code>" if index % 2 else part for index, part in enumerate(parts))
