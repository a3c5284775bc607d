"""The /docs page: the OpenAPI schema as one small HTML page without external assets (Swagger UI uses a CDN)."""

from __future__ import annotations

import json
from typing import Any

#: The style of a page that describes an API.
STYLE = """<style>
 body { font: 15px/1.5 system-ui, "Liberation Sans", sans-serif; color: #1f2933; max-width: 860px; margin: 0 auto; padding: 32px 24px; }
 h1 { font-size: 24px; } h2 { font-size: 17px; margin: 32px 0 6px; }
 .verb { display: inline-block; min-width: 52px; font-weight: 700; color: #2563a8; }
 code, pre { font: 13px/1.45 ui-monospace, "DejaVu Sans Mono", monospace; }
 pre { background: #f5f7f9; padding: 12px 14px; border-radius: 8px; overflow-x: auto; }
 td { padding: 3px 14px 3px 0; vertical-align: top; } .soft { color: #616e7c; }
</style>"""

_PAGE = (
    """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><base href="{{ root }}"><title>{{ model.name }} v{{ model.version }}: HTTP API</title>
"""
    + STYLE
    + """</head><body>
<h1>{{ model.name }}, version {{ model.version }}</h1>
<p class="soft">Contract {{ model.fingerprint[:16] }}. This page as a schema: <a href="openapi.json">openapi.json</a>.</p>
<pre>curl -s {{ url }}predict -H 'content-type: application/json' -d '{"inputs": [{{ example.input }}]}'</pre>
{% for options, description in bodies %}<p>Or {{ description }}:</p><pre>curl -s {{ url }}predict {{ options }}</pre>
{% endfor %}{% for path, verbs in paths.items() %}{% for verb, operation in verbs.items() %}
<h2><span class="verb">{{ verb.upper() }}</span> <code>{{ path }}</code></h2>
<p>{{ operation.description }}</p>
{% if path in ("/predict", "/models/{name}/predict") %}<p>Body:</p><pre>{"inputs": [{{ example.input }}, ...]}</pre>
<p>Response:</p><pre>{"predictions": [{{ example.answer }}, ...],
 "model": {"name": "{{ model.name }}", "version": {{ model.version }}, "fingerprint": "...", "checkpoint": "...", "engine": "{{ model.engine }}"},
 "timing_ms": {"queue": 0.1, "preprocess": 0.2, "inference": 2.4, "total": 3.0}}</pre>
<p>Response headers: <code>x-request-id</code> and W3C <code>traceparent</code> (from the request, or new), <code>server-timing</code>.</p>
<table>{% for status, response in operation.responses.items() %}<tr><td><code>{{ status }}</code></td><td>{{ response.description }}</td></tr>{% endfor %}</table>
{% endif %}{% endfor %}{% endfor %}
</body></html>"""
)


def render_docs_page(
    openapi: dict[str, Any],
    identity: dict[str, Any],
    example: dict[str, Any],
    other_bodies: tuple[tuple[str, str], ...] = (),
    root: str = "./",
) -> str:
    """Return the HTML of the page.

    `openapi` is the schema, `identity` that of the served model, and `example` holds its `input` and `answer`.
    `other_bodies` describes requests that are not JSON: pairs of curl's options and a description. `root` is the
    relative address of the endpoint's `/`.
    """
    from jinja2 import Environment

    template = Environment(autoescape=True).from_string(_PAGE)
    shown = {name: json.dumps(value, ensure_ascii=False) for name, value in example.items()}
    return template.render(
        paths=openapi["paths"],
        model=identity,
        example=shown,
        bodies=other_bodies,
        url="http://HOST:PORT/",
        root=root,
    )
