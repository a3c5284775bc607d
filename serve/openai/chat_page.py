"""The page at `/` of an endpoint that serves language models: a chat whose answers are streamed. One file, no assets."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

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
 * { box-sizing: border-box; }
 body { font: 15px/1.5 system-ui, "Liberation Sans", sans-serif; color: var(--ink); max-width: 760px; margin: 0 auto; padding: 24px; height: 100vh; display: flex; flex-direction: column; }
 header { display: flex; flex-wrap: wrap; gap: 4px 12px; align-items: baseline; border-bottom: 1px solid var(--line); padding-bottom: 12px; }
 h1 { font-size: 22px; margin: 0; flex: 1 1 auto; overflow-wrap: anywhere; } .soft { color: var(--soft); } a { color: var(--blue); }
 #chat { flex: 1; overflow-y: auto; padding: 16px 0; }
 .message { margin: 0 0 14px; max-width: 88%; width: fit-content; padding: 9px 14px; border-radius: 12px; white-space: pre-wrap; overflow-wrap: anywhere; }
 .user { background: var(--blue); color: #fff; margin-left: auto; } .assistant { background: var(--pale); }
 .empty { color: var(--soft); text-align: center; margin-top: 18vh; }
 .note { font-size: 13px; color: var(--soft); margin: -8px 0 14px 14px; } .error { color: #ba2525; white-space: pre-wrap; }
 textarea { width: 100%; font: inherit; padding: 10px 12px; border: 1px solid #cbd2d9; border-radius: 8px; min-height: 60px; resize: vertical; }
 .row { display: flex; gap: 10px; align-items: center; margin-top: 10px; flex-wrap: wrap; }
 button { font: inherit; font-weight: 600; background: var(--blue); color: #fff; border: 0; border-radius: 8px; padding: 8px 20px; cursor: pointer; }
 button.plain { background: none; color: var(--blue); border: 1px solid #cbd2d9; } button:disabled { opacity: .45; cursor: default; }
 select, input { font: inherit; padding: 7px 10px; border: 1px solid #cbd2d9; border-radius: 8px; } input.number { width: 86px; }
 label { color: var(--soft); font-size: 14px; }
</style></head><body>
<header><h1 id="title">{{ first.name }}, version {{ first.version }}</h1><span class="soft"><a href="docs">HTTP API</a> &middot; <a href="metrics">metrics</a></span></header>
<main id="chat" aria-live="polite"><p class="empty" id="empty">Write a message below.</p></main>
<textarea id="input" placeholder="Message" aria-label="Message"></textarea>
<div class="row"><button id="send">Send</button><button id="stop" class="plain" disabled>Stop</button><button id="clear" class="plain">New chat</button>
<select id="model" aria-label="model"></select>
<label>temperature <input id="temperature" class="number" type="number" min="0" max="2" step="0.1" value="0.7"></label>
<label>tokens <input id="tokens" class="number" type="number" min="1" value="256"></label>
<input id="key" type="password" placeholder="API key, if required" autocomplete="off" size="20"></div>
<script id="models" type="application/json">{{ models }}</script>
<script>
const models = JSON.parse(document.getElementById("models").textContent), by = id => document.getElementById(id);
for (const { name } of models) { const option = document.createElement("option"); option.value = option.textContent = name; by("model").append(option); }
by("model").hidden = models.length < 2;
let messages = [], request = null;
function show_model() { const model = models.find(entry => entry.name === by("model").value); by("title").textContent = model.name + ", version " + model.version; }
function add(kind, text) {
  const div = document.createElement("div"); div.className = kind; div.textContent = text;
  by("empty").hidden = true; by("chat").append(div); by("chat").scrollTop = by("chat").scrollHeight; return div;
}
async function send() {
  const text = by("input").value.trim();
  if (!text || request) return;
  by("input").value = ""; messages.push({role: "user", content: text}); add("message user", text);
  const answer = add("message assistant", ""), started = performance.now();
  request = new AbortController(); by("send").disabled = true; by("stop").disabled = false;
  const headers = {"content-type": "application/json"};
  if (by("key").value) headers.authorization = "Bearer " + by("key").value;
  let first = 0, usage = null, problem = "";
  try {
    const response = await fetch("v1/chat/completions", {method: "POST", headers, signal: request.signal, body: JSON.stringify({
      model: by("model").value, messages, stream: true, stream_options: {include_usage: true},
      temperature: Number(by("temperature").value), max_completion_tokens: Number(by("tokens").value)})});
    if (!response.ok) throw new Error(response.status + ": " + (await response.json()).error.message);
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let buffer = "";
    for (let part; !(part = await reader.read()).done;) {
      buffer += part.value;
      const events = buffer.split("\\n\\n"); buffer = events.pop();
      for (const event of events) {
        const data = event.replace(/^data: /, "");
        if (data === "[DONE]") continue;
        const chunk = JSON.parse(data);
        if (chunk.error) throw new Error(chunk.error.message);
        const piece = chunk.choices[0]?.delta.content;
        if (piece) { first = first || performance.now(); answer.textContent += piece; by("chat").scrollTop = by("chat").scrollHeight; }
        usage = chunk.usage || usage;
      }
    }
  } catch (error) { problem = error.name === "AbortError" ? "stopped" : error.message; }
  const content = answer.textContent;
  if (content) messages.push({role: "assistant", content}); else { answer.remove(); messages.pop(); by("input").value = by("input").value || text; }
  if (problem && problem !== "stopped") add("note error", problem);
  else {
    const total = performance.now() - started, rate = usage && first ? (usage.completion_tokens - 1) / ((started + total - first) / 1000) : 0;
    add("note", (problem ? "stopped \\u00b7 " : "") + (usage ? usage.completion_tokens + " tokens \\u00b7 " : "") +
      (first ? "first after " + Math.round(first - started) + " ms" : "no text") + (rate > 0 && isFinite(rate) ? " \\u00b7 " + rate.toFixed(1) + " tokens/s" : ""));
  }
  request = null; by("send").disabled = false; by("stop").disabled = true; by("input").focus();
}
by("send").onclick = send; by("stop").onclick = () => request?.abort(); by("model").onchange = show_model;
by("clear").onclick = () => { request?.abort(); messages = []; by("chat").replaceChildren(by("empty")); by("empty").hidden = false; by("input").focus(); };
by("input").addEventListener("keydown", event => { if (event.key === "Enter" && !event.shiftKey && !event.isComposing) { event.preventDefault(); send(); } });
show_model(); by("input").focus();
</script></body></html>"""


def render_chat_page(identities: Sequence[dict[str, Any]], root: str = "./") -> str:
    """Return the page for the models with these identities; the first is selected when it opens.

    `root` is the relative address of the endpoint's `/`.
    """
    from jinja2 import Environment
    from markupsafe import Markup

    shown = [{"name": identity["name"], "version": identity["version"]} for identity in identities]
    # A script element ends at the first `</script`, so no `<` may be left in the JSON.
    as_json = Markup(json.dumps(shown, ensure_ascii=True).replace("<", "\\u003c"))
    return Environment(autoescape=True).from_string(_PAGE).render(first=identities[0], models=as_json, root=root)
