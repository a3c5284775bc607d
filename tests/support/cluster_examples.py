"""The rendered manifests of examples/cluster."""

import importlib.util
from pathlib import Path

EXAMPLES = Path(__file__).parents[2] / "examples" / "cluster"


def load_renderer():
    """Return the module examples/cluster/render.py."""
    spec = importlib.util.spec_from_file_location("render_cluster_examples", EXAMPLES / "render.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def read_files(folder):
    """Return the files of a rendered example: name -> text."""
    return {path.name: path.read_text() for path in sorted((EXAMPLES / folder).iterdir())}
