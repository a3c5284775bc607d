"""The code in the documentation is right: specs validate, Python imports what exists, commands parse, JSON parses."""

import ast
import contextlib
import importlib
import json
import re
import shlex
from pathlib import Path

import click
import pytest
import yaml

from docs.generate.replay import console_commands
from raymill.cli.main import cli
from support.pages import PAGES, ROOT, Block, blocks_of
from trainer.spec.run import RunSpec
from trainer.spec.spec_file import read_spec_file
from trainer.tasks.catalog import TASKS
from trainer.tasks.load_spec import load_spec

BLOCKS = [block for page in PAGES for block in blocks_of(page)]
PACKAGES = ("raymill", "cluster", "trainer", "tune", "serve")
# Blocks of these languages are shown only: output of commands, and files of other programs.
SHOWN_ONLY = {"text", "nginx", "promql", "csv"}
# A first line `# prometheus.yml` says that a block of YAML is not a spec.
OTHER_YAML = re.compile(r"# (prometheus|mkdocs|serve|pod|nodes)\.ya?ml")
# A first line `# data.features` says where in a spec the block belongs.
FRAGMENT = re.compile(r"# ([a-z_]+(?:\.[a-z_]+)*)\n")


def of_language(*languages):
    """Parametrize a test with the blocks of these languages."""
    chosen = [block for block in BLOCKS if block.language in languages]
    return pytest.mark.parametrize("block", chosen, ids=[block.name for block in chosen])


def test_every_block_names_a_known_language():
    known = {"yaml", "python", "sh", "console", "json", *SHOWN_ONLY}
    assert not [f"{block.name}: ```{block.language}" for block in BLOCKS if block.language not in known]


@of_language("yaml")
def test_a_spec_is_valid(block, tmp_path, monkeypatch):
    if OTHER_YAML.match(block.text):
        assert yaml.safe_load(block.text)
        return
    write_modules(block.page, tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "run.yaml").write_text(block.text, encoding="utf-8")
    raw = read_spec_file(tmp_path / "run.yaml")
    place = FRAGMENT.match(block.text)
    for name in reversed(place[1].split(".") if place else []):
        raw = {name: raw}
    raw = {"name": "fragment", **raw}
    raw["data"] = {"train": "rows.csv", **raw.get("data", {})}
    RunSpec.model_validate(raw)
    if ":" in raw.get("task", ""):
        return  # the page's own task
    errors = []
    for task in [raw["task"]] if "task" in raw else TASKS:  # a fragment is valid if it is for one task
        try:
            load_spec({**raw, "task": task})
            return
        except Exception as error:
            errors.append(f"{task}: {error}")
    raise AssertionError("\n".join(errors))


def write_modules(page: Path, folder: Path) -> None:
    """Write the modules that a page shows: blocks of Python whose first line is `# name.py`."""
    for block in blocks_of(page):
        name = re.match(r"# (\w+\.py)\n", block.text)
        if block.language == "python" and name:
            with (folder / name[1]).open("a", encoding="utf-8") as file:
                file.write(block.text)


@of_language("python")
def test_python_compiles_and_imports_what_exists(block):
    tree = ast.parse(block.text)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] in PACKAGES:
            module = importlib.import_module(node.module)
            missing = [alias.name for alias in node.names if not hasattr(module, alias.name)]
            assert not missing, f"{node.module} has no {missing}"
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] in PACKAGES:
                    importlib.import_module(alias.name)
        elif isinstance(node, ast.Attribute) and getattr(node.value, "id", "") == "raymill":
            assert hasattr(importlib.import_module("raymill"), node.attr), f"raymill.{node.attr}"


@of_language("json")
def test_json_parses(block):
    json.loads(block.text)


@of_language("sh", "console")
def test_commands_parse(block):
    for command in commands_of(block):
        check_command(command)


def commands_of(block: Block) -> list[str]:
    """Return the commands of a block. In a block of `console`, they follow a `$`, and the rest is output."""
    if block.language == "console":
        return [command for command, output in console_commands(block.text)]
    text = re.sub(r"<<'?(\w+)'?.*?^\1$", "", block.text, flags=re.MULTILINE | re.DOTALL).replace("\\\n", " ")
    lines = text.splitlines()
    commands, pending = [], ""
    for line in lines:
        if not pending and (not line.strip() or line.lstrip().startswith("#")):
            continue
        pending += f"{line}\n"
        with contextlib.suppress(ValueError):  # an open quote: the command continues in the next line
            shlex.split(pending, comments=True)
            commands.append(pending)
            pending = ""
    assert not pending, f"{block.name}: a quote is not closed"
    return commands


def check_command(command: str) -> None:
    """Check each part of a shell command that raymill, make, pip, python or curl runs."""
    lexer = shlex.shlex(command, posix=True, punctuation_chars="|&;<>()")
    lexer.whitespace_split, lexer.commenters = True, "#"
    words: list[str] = []
    for word in [*lexer, ";"]:
        if set(word) <= set("|&;<>()"):
            check_words(words)
            words = []
        else:
            words.append(word)


def check_words(words: list[str]) -> None:
    while words and re.match(r"[A-Z_]+=", words[0]):
        words = words[1:]  # an environment variable
    if "--" in words and words[:1] == ["ray"]:
        words = words[words.index("--") + 1 :]
    if words[:3] == ["python", "-m", "raymill"]:
        words = ["raymill", *words[3:]]
    if not words:
        return
    program, arguments = Path(words[0]).name, words[1:]
    if program == "raymill":
        parse_raymill(arguments)
    elif program == "make":
        targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
        assert {word for word in arguments if "=" not in word} <= targets, words
    elif program == "python" and arguments[:1] and arguments[0].startswith(("examples/", "benchmarks/")):
        assert (ROOT / arguments[0]).is_file(), words
    elif program == "pip":
        extras = re.findall(r"^(\w+) = \[", (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
        named = {
            extra for word in arguments for names in re.findall(r"\[([\w,]+)\]$", word) for extra in names.split(",")
        }
        assert named <= set(extras), words
    elif program == "curl" and "-d" in arguments and arguments[arguments.index("-d") + 1].startswith("{"):
        json.loads(arguments[arguments.index("-d") + 1].replace("...", ""))


def parse_raymill(arguments: list[str]) -> None:
    """Parse the arguments of `raymill` down to the last command, without running it."""
    command: click.Command = cli
    name, rest = "raymill", list(arguments)
    while isinstance(command, click.Group):
        _, below, _ = command.make_parser(click.Context(command)).parse_args(list(rest))
        if not below:
            break
        name, rest = below[0], below[1:]
        assert name in command.commands, f"there is no command {name}"
        command = command.commands[name]
    command.make_context(name, list(rest))
    specs = [word for word in arguments if word.startswith("examples/") and word.endswith(".yaml")]
    assert all((ROOT / spec).is_file() for spec in specs), specs
    for key in [arguments[index + 1] for index, word in enumerate(arguments) if word == "--set"]:
        check_override(key)


def check_override(override: str) -> None:
    """Check that the section and the key of `--set a.b=VALUE` exist."""
    section, _, rest = override.partition("=")[0].partition(".")
    field = RunSpec.model_fields[section]
    if rest and hasattr(field.annotation, "model_fields"):
        assert rest.split(".")[0] in field.annotation.model_fields, override


INLINE = [
    (page, code)
    for page in PAGES
    if page.name != "CHANGELOG.md"
    for code in re.findall(
        r"`(raymill [a-z][^`\n]*)`", re.sub(r"^ *```.*?^ *```$", "", page.read_text(), flags=re.M | re.S)
    )
]


@pytest.mark.parametrize(("page", "code"), INLINE, ids=[f"{page.relative_to(ROOT)}: {code}" for page, code in INLINE])
def test_a_command_in_a_sentence_exists(page, code):
    """Only the names of commands and options are checked: arguments may be left out in a sentence."""
    command: click.Command = cli
    for word in shlex.split(code.replace("...", ""))[1:]:
        if isinstance(command, click.Group) and not word.startswith("-"):
            assert word in command.commands, code
            command = command.commands[word]
        elif word.startswith("--"):
            options = {name for option in command.params for name in option.opts}
            assert word.partition("=")[0] in options, code
