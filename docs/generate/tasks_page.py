"""docs/reference/tasks.md: the built-in tasks, from trainer/tasks."""

from __future__ import annotations

import json
from typing import Any

import raymill
from docs.generate.markdown import code, generated_page, table
from trainer.tasks.catalog import TASKS, get_task
from trainer.tasks.spec_keys import OPTIONAL_KEYS

_INTRODUCTION = """
A *task* says what a row and a request look like, how they become model inputs, and which model is trained. Its *target*
says what is predicted: a class, a number or tags. A *role* is the part that a column plays in the task, such as `text`
or `label`. Where a column is not named like its role, the spec names it:

```yaml
task: text-regression            # default: text-classification
data:
  columns: {value: stars}        # the role `value` is the column `stars`; the role `text` is the column `text`
```

`raymill tasks` prints these tasks, and `raymill tasks --json` prints them for programs. For any other input or output,
[write your own task](../how-to/write-a-task.md).
"""
_JSON = '"{'
_NOTES = """
## What a cell of the target holds

| target | a cell holds | bad values |
|---|---|---|
| a class (`label`) | text, a number, true or false, a date; [one class in every spelling](data.md#values) | text without a visible character; over 20 different numbers with decimals (list them in `data.labels` if they are classes); with `data.labels`, any label that is not in the list |
| a number (`value`) | a number, or text such as `12` or `-1.5e3` | `3,5`, `1_000`, true, infinities |
| tags (`labels`) | tags separated by `data.tag_separator`, or a list in jsonl, Parquet or as JSON text; an empty cell means "no tags" | an empty tag, the same tag twice |

An answer lists the tags with a score of 0.5 or more.

## Base models of texts

Text tasks start from any encoder that transformers supports: a hub id, a folder, or `package://`. A pair becomes
`[CLS] text [SEP] text_pair [SEP]`, with token types if the model uses them; `data.max_length` truncates the longer text
first. Pairs are not symmetric: a model may answer differently when you swap the two texts.

## Columns of a prediction file

`raymill predict` copies the columns of its input. It adds `row`, the row's number in the input, and `prediction`, `score`
and `error`.

| target | `prediction` | `score` |
|---|---|---|
| a class | the label | its score |
| tags | the tags as a JSON list | the highest score |
| a number | the number | empty |
"""


def build_page() -> str:
    """Return the page."""
    tasks = raymill.tasks()
    overview = [
        [
            f"[`{task['task']}`](#{task['task']})",
            ", ".join(map(code, task["columns"])),
            code(task["metric"]),
            _model(task["model"]),
        ]
        for task in tasks
    ]
    introduction = _INTRODUCTION + "\n" + table(["task", "columns by role", "default metric", "model"], overview)
    return generated_page("Tasks", "trainer/tasks/", introduction, *map(_details, tasks), _optional_keys(), _NOTES)


def _model(text: str) -> str:
    """Return `model.base: an encoder` with the key as code."""
    key, _, about = text.partition(": ")
    return f"`model.{key}`: {about}"


def _details(task: dict[str, Any]) -> str:
    return "\n".join(
        [
            f"## `{task['task']}`\n",
            *(f"- {code(role)}: {about}" for role, about in task["columns"].items()),
            f"- an input of a request: {code(task['request']) if task['request'][0] in _JSON else task['request']}",
            f"- its answer: {code(json.dumps(task['answer']))}",
            f"- metrics: {', '.join(map(code, task['metrics']))}; by default {code(task['metric'])}",
        ]
    )


def _optional_keys() -> str:
    tasks = {name: get_task(name) for name in TASKS}
    rows = [
        [code(key), *("yes" if key in task.used_keys | task.target.used_keys else "" for task in tasks.values())]
        for key in sorted(OPTIONAL_KEYS)
    ]
    return (
        "## Keys that only some tasks use\n\nA spec that sets one of these keys for a task that does not use it is "
        "rejected.\n\n" + table(["key", *tasks], rows)
    )
