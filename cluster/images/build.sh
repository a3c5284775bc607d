#!/usr/bin/env bash
# Build raymill's image: build.sh cpu|cuda IMAGE [OPTION...]. Example: cluster/images/build.sh cpu registry.example/raymill:0.1.0
# Uses docker, podman or buildah, whichever works here first; BUILDER names one. The options go to its build command.
set -euo pipefail

variant=${1:?cpu or cuda} image=${2:?name of the image}
shift 2
images=$(cd "$(dirname "$0")" && pwd)
torch_index=https://download.pytorch.org/whl/cpu
root=$(cd "$images/../.." && pwd)
[[ -f $images/$variant.lock ]] || { echo "there is no $variant.lock; the variants are cpu and cuda" >&2; exit 2; }

find_builder() {
  # A docker without its daemon cannot build.
  if command -v docker >/dev/null && docker info >/dev/null 2>&1; then echo docker
  elif command -v podman >/dev/null; then echo podman
  elif command -v buildah >/dev/null; then echo buildah
  else echo "install docker, podman or buildah" >&2; exit 2
  fi
}

builder=${BUILDER:-$(find_builder)}
[[ $builder =~ ^(docker|podman|buildah)$ ]] || { echo "BUILDER is '$builder'; it is docker, podman or buildah" >&2; exit 2; }
python=${PYTHON:-python3}
context=$(mktemp -d)
trap 'rm -rf "$context"' EXIT

# The image has what is committed. The build sees these files only: no data, no .git, no secrets.
mkdir "$context/source"
git -C "$root" archive HEAD | tar -x -C "$context/source"
"$python" -m pip wheel --quiet --no-deps --wheel-dir "$context" "$context/source"
rm -rf "$context/source"
cp "$images/Dockerfile" "$images/$variant.lock" "$images/tools.lock" "$context"
wheel=$(basename "$context"/raymill-*.whl)
version=${wheel#raymill-} version=${version%%-*}

arguments=(
  --build-arg "VARIANT=$variant"
  --build-arg "VERSION=$version"
  --build-arg "REVISION=$(git -C "$root" rev-parse HEAD)"
  --build-arg "CREATED=$(date -u +%Y-%m-%dT%H:%M:%SZ)"
)
[[ -z ${BASE:-} ]] || arguments+=(--build-arg "BASE=$BASE")
# PyPI's torch is the build for CUDA.
[[ $variant != cpu ]] || arguments+=(--build-arg "TORCH_SOURCE=${TORCH_SOURCE:---index $torch_index --index-strategy unsafe-best-match}")

# Only docker's format of images holds a HEALTHCHECK.
case $builder in
  docker) build=(docker build) ;;
  podman) build=(podman ${BUILDER_OPTIONS:-} build --format docker) ;;
  buildah) build=(buildah ${BUILDER_OPTIONS:-} bud --format docker --layers) ;;
esac
"${build[@]}" "${arguments[@]}" "$@" --tag "$image" "$context"
