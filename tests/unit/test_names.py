"""One name means one thing, and names say what they are."""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
FILES = [
    path for top in ("raymill", "cluster", "trainer", "tune", "serve") for path in sorted((ROOT / top).rglob("*.py"))
]
#: Words that say nothing about the thing they name, with some that fit better.
VAGUE = {
    "found": "what was found: version, rows, match",
    "place": "rank, worker, index, position, folder",
    "told": "messages, reports",
    "tell": "report, print, emit",
    "kept": "what is kept: rows, models",
    "held": "held_out, locked",
    "judged": "metrics, verdicts",
    "given": "what is given: value, options",
    "made": "what is made: engines, blocks",
    "said": "message, text",
    "wanted": "expected, requested",
    "how": "spec, config, mode",
}

#: Terms of a library.
ALLOWED = {("tune/sampler.py", "tell")}  # Optuna's ask-and-tell interface


def names_in(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Yield every name that a file defines, with its line."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield node.name, node.lineno
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id, node.lineno
        elif isinstance(node, ast.arg):
            yield node.arg, node.lineno
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr, node.lineno


def test_no_vague_names():
    vague = [
        f"{path.relative_to(ROOT)}:{line}: `{name}`; better: {VAGUE[name.strip('_')]}"
        for path in FILES
        if re.search(rf"\b_*({'|'.join(VAGUE)})_*\b", path.read_text())  # parse only what may hold one
        for name, line in names_in(ast.parse(path.read_text()))
        if name.strip("_") in VAGUE and (str(path.relative_to(ROOT)), name) not in ALLOWED
    ]
    assert not vague, "\n".join(vague)


def test_no_public_class_name_is_defined_twice():
    places = defaultdict(list)
    for path in FILES:
        for name in re.findall(r"^class ([^_]\w*)", path.read_text(), re.MULTILINE):
            places[name].append(str(path.relative_to(ROOT)))
    twice = {name: files for name, files in places.items() if len(files) > 1}
    assert not twice


def test_every_module_has_a_docstring():
    docstring = re.compile(r'(#.*\n|\s)*r?"""\S')
    without = [str(path) for path in FILES if path.name != "__init__.py" and not docstring.match(path.read_text())]
    todo = [str(path) for path in FILES if "TODO" in path.read_text()]
    assert not without and not todo
