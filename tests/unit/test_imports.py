"""What may import what, and what may be heavy."""

import ast
import functools
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOP = ("cluster", "trainer", "tune", "serve", "raymill")
#: All packages from the ground up: a file imports only from its own package and from packages above it in this list.
PACKAGES = [
    "cluster",
    "cluster.monitoring",
    "cluster.node_checks",
    "cluster.jobs",
    "trainer.charts",
    "trainer.values",
    "trainer.chat",
    "trainer.spec",
    "trainer.contract",
    "trainer.steps",
    "trainer.models.decoder",
    "trainer.models",
    "trainer.models.causal",
    "trainer.generation",
    "trainer.export",
    "trainer.preference",
    "trainer.features",
    "trainer.targets.metrics",
    "trainer.targets.sections",
    "trainer.targets.answers",
    "trainer.targets",
    "trainer.rewards",
    "trainer.optim.distributed",
    "trainer.optim",
    "trainer.optim.bert",
    "trainer.tasks",
    "trainer.tasks.estimators",
    "trainer.tasks.generation",
    "trainer.tasks.images",
    "trainer.tasks.tables",
    "trainer.tasks.text",
    "trainer.tasks.generation",
    "trainer.data",
    "trainer.data.sources",
    "trainer.data.readers",
    "trainer.data.prepare",
    "trainer.defaults",
    "trainer.planning",
    "trainer.draft",
    "trainer.runs",
    "trainer.rollouts",
    "trainer.inference",
    "trainer.registry",
    "trainer.training.checkpoint",
    "trainer.training.tracking",
    "trainer.training",
    "trainer.report",
    "trainer.pipeline",
    "tune",
    "serve.engines",
    "serve.engines.onnx",
    "serve.engines.generation",
    "serve.model",
    "serve.generation",
    "serve.asgi",
    "serve.openai",
    "serve",
    "serve.local",
    "cluster.manifests.checks",
    "cluster.manifests",
    "raymill",
    "raymill.cli",
    "raymill.__main__",
]
#: Serving turns a checkpoint into predictions; it takes nothing else from `trainer`.
SERVE_MAY_USE = {"chat", "contract", "export", "generation", "inference", "optim", "registry", "spec", "tasks"}


def modules() -> dict[str, Path]:
    """Return every module of raymill with its file."""
    files = {}
    for path in (file for top in TOP for file in (ROOT / top).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        files[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return files


MODULES = modules()


def imports_of(path: Path) -> set[str]:
    """Return raymill's modules that a file imports anywhere in it: on top, in functions, for types only."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                names.add(inner if inner in MODULES else node.module)
    return names & set(MODULES)


@functools.cache
def all_imports() -> dict[str, set[str]]:
    """Return the modules that each module imports; all files are parsed once, when the first test asks."""
    return {name: imports_of(path) - {name} for name, path in MODULES.items()}


def package_of(module: str) -> str:
    """Return the package of a module; `raymill.__main__` starts the command line and counts as a package of its own."""
    if module == "raymill.__main__" or MODULES[module].name == "__init__.py":
        return module
    return module.rpartition(".")[0]


def test_every_package_has_its_place_in_the_order():
    # `trainer` itself holds no code.
    assert {package_of(module) for module in MODULES} == {*PACKAGES, "trainer"}


@pytest.mark.parametrize("package", [*PACKAGES, "trainer"])
def test_packages_import_downwards(package):
    below = PACKAGES[: PACKAGES.index(package) + 1] if package != "trainer" else []
    for module in (name for name in MODULES if package_of(name) == package):
        upwards = {name for name in all_imports()[module] if package_of(name) not in below}
        assert not upwards, (
            f"{module} imports {sorted(upwards)}, which are above {package}: they come after it in PACKAGES"
        )


def test_no_files_import_each_other():
    # Remove the files that import none of the remaining ones, again and again. Files that stay import in a circle.
    left = dict(all_imports())
    while True:
        free = {module for module, used in left.items() if not used & left.keys()}
        if not free:
            break
        left = {module: used for module, used in left.items() if module not in free}
    assert not left, f"these files import each other in a circle, or import such files: {sorted(left)}"


def test_serving_takes_of_trainer_only_what_turns_a_checkpoint_into_a_prediction():
    for module in (name for name in MODULES if name.split(".")[0] == "serve"):
        parts = {name.split(".")[1] for name in all_imports()[module] if name.startswith("trainer.")}
        assert parts <= SERVE_MAY_USE, f"{module} uses trainer's {parts - SERVE_MAY_USE}"


def test_no_file_is_over_400_lines():
    lengths = {path: len(path.read_text().splitlines()) for path in [*MODULES.values(), *ROOT.glob("tests/**/*.py")]}
    assert not {str(path): length for path, length in lengths.items() if length > 400}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("code", "absent"),
    [
        ("import trainer.spec.run", ["torch", "ray", "transformers", "numpy", "pyarrow", "pandas"]),
        ("import trainer.spec.parse, trainer.spec.spec_file", ["torch", "ray", "transformers"]),
        ("import raymill.cli.main", ["torch", "ray", "pydantic", "rich", "numpy", "yaml", "asyncio"]),
        ("import trainer.data.prepare.prepare, trainer.registry.registry", ["torch", "ray", "transformers"]),
    ],
)
def test_heavy_modules_stay_unloaded(code, absent):
    check = f"{code}; import sys; found = [m for m in {absent!r} if m in sys.modules]; assert not found, found"
    subprocess.run([sys.executable, "-c", check], check=True, cwd=ROOT)


def test_no_pickle_and_no_remote_code_on_any_load_path():
    for path in MODULES.values():
        text = path.read_text()
        for word in ("import pickle", "pickle.load", "torch.load", "trust_remote_code=True", "allow_pickle=True"):
            assert word not in text, f"{word} in {path}"
