"""What may import what, and what may be heavy."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BELOW = {"cluster": set(), "trainer": {"cluster"}, "tune": {"trainer", "cluster"}, "serve": {"trainer", "cluster"}}
SERVE_MAY_USE = {
    "spec",
    "spec_load",
    "contract",
    "tasks",
    "steps",
    "checkpoint",
    "registry",
    "predictor",
    "golden",
    "precision",
    "spec_serve",
}


def imports_of(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("package", sorted(BELOW))
def test_imports_go_one_way(package):
    for path in (ROOT / package).rglob("*.py"):
        used = {name.split(".")[0] for name in imports_of(path)} & ({*BELOW, "raymill", "raymill_cli"} - {package})
        assert used <= BELOW[package], f"{path} imports {used - BELOW[package]}"


def test_serve_uses_of_trainer_only_what_turns_a_checkpoint_into_a_prediction():
    for path in (ROOT / "serve").rglob("*.py"):
        parts = {name.split(".")[1] for name in imports_of(path) if name.startswith("trainer.")}
        assert parts <= SERVE_MAY_USE, f"{path} uses trainer's {parts - SERVE_MAY_USE}"


@pytest.mark.parametrize(
    ("code", "absent"),
    [
        ("import trainer.spec", ["torch", "ray", "transformers", "numpy", "pyarrow", "pandas"]),
        ("import trainer.spec_load", ["torch", "ray", "transformers"]),
        ("import raymill_cli", ["torch", "ray", "pydantic", "rich", "numpy", "yaml"]),
        ("import trainer.data.prepare, trainer.registry", ["torch", "ray", "transformers"]),
    ],
)
def test_heavy_modules_stay_unloaded(code, absent):
    check = f"{code}; import sys; found = [m for m in {absent!r} if m in sys.modules]; assert not found, found"
    subprocess.run([sys.executable, "-c", check], check=True, cwd=ROOT)


def test_no_pickle_and_no_remote_code_on_any_load_path():
    for path in [*ROOT.glob("*.py"), *(file for package in BELOW for file in (ROOT / package).rglob("*.py"))]:
        text = path.read_text()
        for word in ("import pickle", "pickle.load", "torch.load", "trust_remote_code=True", "allow_pickle=True"):
            assert word not in text, f"{word} in {path}"
