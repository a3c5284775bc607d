#!/usr/bin/env bash
# Write cpu.lock, cuda.lock and tools.lock: every package of the images with its version and its hashes.
# Needs uv. Arguments go to uv, for example `--upgrade`. TORCH_SOURCE says where the CPU build of torch is.
set -euo pipefail
cd "$(dirname "$0")/../.."

compile() {
  uv pip compile --quiet --python-platform x86_64-manylinux_2_28 --python-version 3.11 --generate-hashes --no-annotate --no-emit-find-links \
    --custom-compile-command "cluster/images/lock.sh" "$@"
}

common=(--extra sql --extra lora --extra mlflow --extra onnx --extra otel)
read -ra torch <<<"${TORCH_SOURCE:---index https://download.pytorch.org/whl/cpu --index-strategy unsafe-best-match}"
compile "${common[@]}" --extra openvino "${torch[@]}" "$@" \
  -o cluster/images/cpu.lock pyproject.toml cluster/images/cpu.in
compile "${common[@]}" --extra 8bit "$@" -o cluster/images/cuda.lock pyproject.toml cluster/images/cuda.in
compile "$@" -o cluster/images/tools.lock cluster/images/tools.in
