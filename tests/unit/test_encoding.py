"""Letters outside ASCII: every output on every encoding, and files that are read and written as UTF-8."""

import ast
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from cluster.console import Console
from cluster.encoding import check_path, to_json
from cluster.errors import SpecError
from cluster.progress import Progress, ProgressTable

ROOT = Path(__file__).parents[2]
TEXTS = ["Rückgabe", "包裹 счёт", "naïve … “quotes” — ≥", "\U0001f600", "name-\udce4.csv", "a\x00b\x85"]
ENCODINGS = ["ascii", "iso8859-1", "cp1252", "cp437", "koi8-r", "shift_jis", "utf-8", "utf-16"]
#: What an entry point of raymill does first.
START = "from cluster.encoding import prepare_streams, use_utf8; use_utf8(); prepare_streams();"
#: Environments in which Python's output or its names of files are not UTF-8.
LOCALES = {
    "ascii output": {"PYTHONIOENCODING": "ascii"},
    "strict latin-1 output": {"PYTHONIOENCODING": "iso8859-1:strict"},
    "C": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    "an unknown locale": {"LC_ALL": "xx_XX.ISO-8859-1", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    "a usual one": {"LC_ALL": "C.UTF-8"},
}


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("terminal", [False, True])
def test_the_console_shows_every_text_on_every_encoding(encoding, terminal, monkeypatch):
    if terminal:
        monkeypatch.setenv("FORCE_COLOR", "1")
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="backslashreplace")
    console = Console(stream)
    for text in TEXTS:
        console.print(text, style="red")
        console.detail(text)
        console.table(text, [text, "n"], [[text, 1.5], [None, 2]])
        with console.stage(text) as show:
            show(Progress(done=1, total=2, note=text, table=ProgressTable(columns=[text], rows=[[text]])))
    stream.flush()
    shown = stream.buffer.getvalue().decode(encoding, errors="surrogatepass")
    assert ("Rückgabe" in shown) or (r"R\xfcckgabe" in shown)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_json_is_the_same_value_on_every_encoding(encoding):
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    value = {text: [text] for text in TEXTS}
    text = to_json(value, stream)
    assert json.loads(text.encode(encoding).decode(encoding)) == value and "\n" not in text
    if encoding != "utf-8":
        assert text.isascii()


@pytest.mark.parametrize("encoding", ["ascii", "iso8859-1", "utf-8"])
def test_a_redirected_command_keeps_the_encoding_of_its_terminal(encoding, tmp_path):
    code = f"""
import sys
{START}
from pathlib import Path
from cluster.terminal import OutputRedirect
redirect = OutputRedirect()
redirect.redirect(Path(sys.argv[1]))
print("größe", file=redirect.stdout)
print("größe \u5305", file=redirect.stderr)
print("to the log \u5305")
"""
    done = run_python(code, str(tmp_path / "log-ä"), PYTHONIOENCODING=encoding)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "größe\n".encode(encoding, errors="backslashreplace")
    assert done.stderr == "größe \u5305\n".encode(encoding, errors="backslashreplace")
    assert b"to the log" in (tmp_path / "log-ä").read_bytes()


@pytest.mark.parametrize("locale", LOCALES)
def test_names_of_files_and_child_processes_in_every_locale(locale, tmp_path):
    """A name with letters is the same file everywhere, and a child prints them without an error."""
    (tmp_path / "größe-包.txt").write_text("Inhalt: ü", encoding="utf-8")
    code = f"""
import os, subprocess, sys
{START}
from pathlib import Path
path = Path(sys.argv[1]) / "größe-\u5305.txt"
print(path.read_text(), flush=True)
print(sys.argv[2] == "größe", sys.flags.utf8_mode, flush=True)
subprocess.run([sys.executable, "-c", "print('child \\u5305', open(" + ascii(str(path)) + ").read())"], check=True)
"""
    done = run_python(code, str(tmp_path), "größe", **LOCALES[locale])
    assert done.returncode == 0, done.stderr
    assert b"Inhalt: " in done.stdout and b"child " in done.stdout and b"True" in done.stdout


def run_python(code, *arguments, **variables):
    names = ("LC_ALL", "LANG", "LC_CTYPE", "PYTHONUTF8", "PYTHONIOENCODING", "PYTHONCOERCECLOCALE")
    environment = {name: value for name, value in os.environ.items() if name not in names}
    path = Path(arguments[0]) if Path(arguments[0]).is_dir() else Path(arguments[0]).parent
    (path / "script.py").write_text(code, encoding="utf-8")
    return subprocess.run(
        [sys.executable, path / "script.py", *arguments],
        capture_output=True,
        env={"LC_ALL": "C.UTF-8", **environment, "PYTHONPATH": str(ROOT), **variables},
        timeout=120,
    )


def test_a_name_that_the_locale_cannot_write_names_the_variable_to_set(monkeypatch):
    assert check_path("/größe") == "/größe"
    with pytest.raises(SpecError, match="set PYTHONUTF8=1"):
        check_path("/half a letter: \ud800")


TEXT_CALLS = {"read_text", "write_text"}
OPEN_CALLS = {"open", "fdopen", "TextIOWrapper", "NamedTemporaryFile"}
PROCESS_CALLS = {"run", "Popen", "check_output", "check_call"}
#: Calls of other kinds: file descriptors, images, and the members of an archive, which are bytes.
NO_TEXT = {"os.open", "Image.open", "archive.open"}


def text_calls_without_encoding(path):
    text = path.read_text(encoding="utf-8")
    calls = TEXT_CALLS | OPEN_CALLS | PROCESS_CALLS
    if not re.search(rf"\b({'|'.join(calls)})\b", text):
        return
    for node in ast.walk(ast.parse(text)):
        name = getattr(node.func, "attr", getattr(node.func, "id", "")) if isinstance(node, ast.Call) else ""
        if name not in calls or ast.unparse(node.func) in NO_TEXT:
            continue
        options = {keyword.arg for keyword in node.keywords}
        words = [ast.literal_eval(value) for value in node.args if isinstance(value, ast.Constant)]
        is_binary = any(isinstance(word, str) and "b" in word and set(word) <= set("rwaxbt+") for word in words)
        is_text = (
            name in TEXT_CALLS
            or (name in OPEN_CALLS and not is_binary)
            or (name in PROCESS_CALLS and bool(options & {"text", "universal_newlines"}))
        )
        if is_text and "encoding" not in options:
            yield f"{path.relative_to(ROOT)}:{node.lineno}: {ast.unparse(node)[:100]}"


def test_every_file_and_process_of_the_product_names_its_encoding():
    files = [file for top in ("raymill", "cluster", "trainer", "tune", "serve") for file in (ROOT / top).rglob("*.py")]
    assert not [call for file in files for call in text_calls_without_encoding(file)]
