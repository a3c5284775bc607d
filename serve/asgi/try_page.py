"""The page at `/`: try the model by hand, with scores, timing and lineage. One file, no external assets."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from serve.model.served_model import Served

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
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
 .time div { min-width: 2px; } .queue { background: #cbd2d9; } .tokenize { background: #f0b429; } .inference { background: var(--blue); } .rest { background: #e4e7eb; }
 .key { display: inline-block; width: 10px; height: 10px; border-radius: 2px; margin: 0 5px 0 14px; } .key:first-child { margin-left: 0; }
 section { border-top: 1px solid var(--line); padding-top: 14px; margin-top: 20px; } h2 { font-size: 15px; margin: 0 0 8px; color: var(--soft); font-weight: 600; }
 code { font: 13px/1.45 ui-monospace, "DejaVu Sans Mono", monospace; overflow-wrap: anywhere; } .wrong { color: #ba2525; white-space: pre-wrap; }
</style></head><body>
<h1 id="title">{{ first.name }}, version {{ first.version }}</h1>
<p class="soft">Try it by hand. <a href="docs">How to ask over HTTP</a> &middot; <a href="metrics">metrics</a></p>
<label for="input" class="soft" id="hint"></label>
<textarea id="input" spellcheck="false"></textarea>
<div class="row"><button id="ask">Predict</button>
<select id="model" aria-label="model"></select>
<input id="key" type="password" placeholder="API key, if it needs one" autocomplete="off" size="24">
<span class="soft">Ctrl + Enter</span></div>
<p id="wrong" class="wrong" role="alert"></p>
<div id="found" hidden>
 <div class="answer" id="answer"></div><table id="scores"></table>
 <section><h2>Time</h2><div class="time" id="bar"></div><div class="soft" id="times"></div></section>
 <section><h2>Lineage</h2><table id="lineage"></table></section>
</div>
<script id="models" type="application/json">{{ models }}</script>
<script>
const models = JSON.parse(document.getElementById("models").textContent), by = id => document.getElementById(id);
for (const one of models) { const o = document.createElement("option"); o.value = one.model.name; o.textContent = one.model.name; by("model").append(o); }
by("model").hidden = models.length < 2;
const chosen = () => models.find(one => one.model.name === by("model").value);
function show_model() {
  const one = chosen(), text = typeof one.input === "string";
  by("title").textContent = one.model.name + ", version " + one.model.version;
  by("hint").textContent = text ? "A text, or several, a line each" : "An input as JSON";
  by("input").placeholder = text ? one.input : JSON.stringify(one.input, null, 1);
  if (!text) by("input").value = JSON.stringify(one.input, null, 1);
}
function row(table, cells) { const tr = table.insertRow(); for (const [text, kind] of cells) { const td = tr.insertCell(); td.className = kind; if (text instanceof Node) td.append(text); else td.textContent = text; } }
function block(kind, share) { const div = document.createElement("div"); div.className = kind; div.style.width = (100 * share).toFixed(2) + "%"; return div; }
function show(found) {
  const answer = found.predictions[0], table = by("scores");
  by("answer").textContent = found.predictions.map(a => a.label ?? (a.labels ? a.labels.join(", ") || "none" : a.value)).join(" \\u00b7 ");
  table.replaceChildren();
  const scores = Object.entries(answer.scores ?? {}).sort((a, b) => b[1] - a[1]).slice(0, 8);
  for (const [label, score] of scores) row(table, [[label, "l"], [block("bar", score), ""], [score.toFixed(3), "n"]]);
  const t = found.timing_ms, rest = Math.max(0, t.total - t.queue - t.tokenize - t.inference), bar = by("bar");
  bar.replaceChildren(...["queue", "tokenize", "inference"].map(k => block(k, t[k] / t.total)), block("rest", rest / t.total));
  by("times").replaceChildren();
  for (const [name, ms] of [["queue", t.queue], ["tokenize", t.tokenize], ["inference", t.inference], ["rest", rest]]) {
    const key = document.createElement("span"); key.className = "key " + name; by("times").append(key, name + " " + ms.toFixed(2) + " ms"); }
  by("times").append(" \\u00b7 " + t.total.toFixed(2) + " ms in all");
  by("lineage").replaceChildren();
  for (const [name, value] of Object.entries(found.model)) { const code = document.createElement("code"); code.textContent = value; row(by("lineage"), [[name, "l soft"], [code, ""]]); }
  by("found").hidden = false;
}
async function ask() {
  by("wrong").textContent = "";
  const one = chosen(), given = by("input").value;
  let inputs;
  try { inputs = typeof one.input === "string" ? given.split("\\n").filter(line => line.trim()) : [JSON.parse(given)]; }
  catch (error) { by("wrong").textContent = "This is no JSON: " + error.message; return; }
  const headers = {"content-type": "application/json"};
  if (by("key").value) headers.authorization = "Bearer " + by("key").value;
  try {
    const reply = await fetch("models/" + one.model.name + "/predict", {method: "POST", headers, body: JSON.stringify({inputs})});
    const found = await reply.json();
    if (reply.ok) show(found); else { by("found").hidden = true; by("wrong").textContent = reply.status + ": " + found.error.message; }
  } catch (error) { by("wrong").textContent = "no answer: " + error.message; }
}
by("ask").onclick = ask; by("model").onchange = show_model;
by("input").addEventListener("keydown", event => { if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) ask(); });
show_model();
</script></body></html>"""


def try_page(models: Sequence[Served]) -> str:
    """Return the page for some models; the first is chosen when it opens."""
    from jinja2 import Environment
    from markupsafe import Markup

    shown: list[dict[str, Any]] = [{"model": served.model, "input": served.example["input"]} for served in models]
    # In a script element nothing but the end of the element means anything.
    as_json = Markup(json.dumps(shown, ensure_ascii=True).replace("<", "\\u003c"))
    return Environment(autoescape=True).from_string(_PAGE).render(first=models[0].model, models=as_json)
