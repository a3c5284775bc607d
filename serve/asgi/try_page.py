"""The page at `/`, to try the model in the browser: scores, timing and lineage. One file, without external assets."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from serve.model.served_model import ServedModel

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<base href="{{ root }}">
<script>
// Below a proxy's prefix, the address of this page may lack the slash that relative links need.
if (!location.pathname.endsWith("/")) document.querySelector("base").href = location.origin + location.pathname + "/";
</script>
<title>{{ first.name }} v{{ first.version }}</title>
<style>
 :root { --ink: #1f2933; --soft: #616e7c; --line: #e4e7eb; --blue: #2563a8; --pale: #f5f7f9; }
 body { font: 15px/1.5 system-ui, "Liberation Sans", sans-serif; color: var(--ink); max-width: 760px; margin: 0 auto; padding: 32px 24px; }
 h1 { font-size: 24px; margin: 0; } .soft { color: var(--soft); } a { color: var(--blue); }
 textarea { width: 100%; box-sizing: border-box; font: inherit; padding: 12px; border: 1px solid #cbd2d9; border-radius: 8px; min-height: 84px; }
 .row { display: flex; gap: 12px; align-items: center; margin: 12px 0 24px; flex-wrap: wrap; }
 button { font: inherit; font-weight: 600; background: var(--blue); color: #fff; border: 0; border-radius: 8px; padding: 9px 20px; cursor: pointer; }
 select, input { font: inherit; padding: 7px 10px; border: 1px solid #cbd2d9; border-radius: 8px; }
 .answer { font-size: 28px; font-weight: 700; margin: 4px 0 10px; overflow-wrap: anywhere; }
 table { border-collapse: collapse; width: 100%; } td { padding: 4px 10px 4px 0; vertical-align: middle; }
 td.n { text-align: right; font-variant-numeric: tabular-nums; width: 70px; } td.l { width: 40%; overflow-wrap: anywhere; }
 .bar { background: #d6e4f3; height: 14px; border-radius: 3px; min-width: 1px; } tr:first-child .bar { background: var(--blue); }
 .time { display: flex; height: 22px; border-radius: 5px; overflow: hidden; margin: 6px 0; background: var(--pale); }
 .time div { min-width: 2px; } .queue { background: #cbd2d9; } .preprocess { background: #f0b429; } .inference { background: var(--blue); } .rest { background: #e4e7eb; }
 .key { display: inline-block; width: 10px; height: 10px; border-radius: 2px; margin: 0 5px 0 14px; } .key:first-child { margin-left: 0; }
 section { border-top: 1px solid var(--line); padding-top: 14px; margin-top: 20px; } h2 { font-size: 15px; margin: 0 0 8px; color: var(--soft); font-weight: 600; }
 code { font: 13px/1.45 ui-monospace, "DejaVu Sans Mono", monospace; overflow-wrap: anywhere; } .error { color: #ba2525; white-space: pre-wrap; }
</style></head><body>
<h1 id="title">{{ first.name }}, version {{ first.version }}</h1>
<p class="soft">Try the model. <a href="docs">HTTP API</a> &middot; <a href="metrics">metrics</a></p>
<label for="input" class="soft" id="hint"></label>
<textarea id="input" spellcheck="false"></textarea>
<div class="row"><button id="predict">Predict</button>
<select id="model" aria-label="model"></select>
<input id="key" type="password" placeholder="API key, if required" autocomplete="off" size="24">
<span class="soft">Ctrl + Enter</span></div>
<p id="error" class="error" role="alert"></p>
<div id="result" hidden>
 <div class="answer" id="answer"></div><table id="scores"></table>
 <section><h2>Time</h2><div class="time" id="bar"></div><div class="soft" id="times"></div></section>
 <section><h2>Lineage</h2><table id="lineage"></table></section>
</div>
<script id="models" type="application/json">{{ models }}</script>
<script>
const models = JSON.parse(document.getElementById("models").textContent), by = id => document.getElementById(id);
for (const { model } of models) { const option = document.createElement("option"); option.value = option.textContent = model.name; by("model").append(option); }
by("model").hidden = models.length < 2;
const selected = () => models.find(entry => entry.model.name === by("model").value);
function show_model() {
  const { model, input } = selected(), text = typeof input === "string";
  by("title").textContent = model.name + ", version " + model.version;
  by("hint").textContent = text ? "One text per line" : "One input as JSON";
  by("input").placeholder = text ? input : JSON.stringify(input, null, 1);
  if (!text) by("input").value = JSON.stringify(input, null, 1);
}
function row(table, cells) { const tr = table.insertRow(); for (const [text, kind] of cells) { const td = tr.insertCell(); td.className = kind; if (text instanceof Node) td.append(text); else td.textContent = text; } }
function block(kind, share) { const div = document.createElement("div"); div.className = kind; div.style.width = (100 * share).toFixed(2) + "%"; return div; }
function show(reply) {
  const answer = reply.predictions[0], table = by("scores");
  by("answer").textContent = reply.predictions.map(a => a.label ?? (a.labels ? a.labels.join(", ") || "none" : a.value)).join(" \\u00b7 ");
  table.replaceChildren();
  const scores = Object.entries(answer.scores ?? {}).sort((a, b) => b[1] - a[1]).slice(0, 8);
  for (const [label, score] of scores) row(table, [[label, "l"], [block("bar", score), ""], [score.toFixed(3), "n"]]);
  const t = reply.timing_ms, rest = Math.max(0, t.total - t.queue - t.preprocess - t.inference), bar = by("bar");
  bar.replaceChildren(...["queue", "preprocess", "inference"].map(k => block(k, t[k] / t.total)), block("rest", rest / t.total));
  by("times").replaceChildren();
  for (const [name, ms] of [["queue", t.queue], ["preprocess", t.preprocess], ["inference", t.inference], ["rest", rest]]) {
    const key = document.createElement("span"); key.className = "key " + name; by("times").append(key, name + " " + ms.toFixed(2) + " ms"); }
  by("times").append(" \\u00b7 " + t.total.toFixed(2) + " ms total");
  by("lineage").replaceChildren();
  for (const [name, value] of Object.entries(reply.model)) { const code = document.createElement("code"); code.textContent = value; row(by("lineage"), [[name, "l soft"], [code, ""]]); }
  by("result").hidden = false;
}
async function predict() {
  by("error").textContent = "";
  const { model, input } = selected(), typed = by("input").value;
  let inputs;
  try { inputs = typeof input === "string" ? typed.split("\\n").filter(line => line.trim()) : [JSON.parse(typed)]; }
  catch (error) { by("error").textContent = "The input is not JSON: " + error.message; return; }
  const headers = {"content-type": "application/json"};
  if (by("key").value) headers.authorization = "Bearer " + by("key").value;
  try {
    const response = await fetch("models/" + model.name + "/predict", {method: "POST", headers, body: JSON.stringify({inputs})});
    const reply = await response.json();
    if (response.ok) show(reply); else { by("result").hidden = true; by("error").textContent = response.status + ": " + reply.error.message; }
  } catch (error) { by("error").textContent = "No answer: " + error.message; }
}
by("predict").onclick = predict; by("model").onchange = show_model;
by("input").addEventListener("keydown", event => { if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) predict(); });
show_model();
</script></body></html>"""


def render_try_page(models: Sequence[ServedModel], *, root: str = "./") -> str:
    """Return the page for the models of an endpoint; the first is selected when it opens.

    `root` is the relative address of the endpoint's `/`.
    """
    from jinja2 import Environment
    from markupsafe import Markup

    shown: list[dict[str, Any]] = [{"model": served.identity, "input": served.example["input"]} for served in models]
    # A script element ends at the first `</script`, so no `<` may be left in the JSON.
    as_json = Markup(json.dumps(shown, ensure_ascii=True).replace("<", "\\u003c"))
    return Environment(autoescape=True).from_string(_PAGE).render(first=models[0].identity, models=as_json, root=root)
