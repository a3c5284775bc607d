"""The environment variables that every machine of a cluster needs, whatever starts Ray there."""

from __future__ import annotations

from cluster.manifests.inputs import ManifestInputs
from serve.haproxy import cluster_variables
from serve.haproxy_command import PROGRAM

# Where the image of cluster/images has the programs of its Python.
_PROGRAMS = "/opt/raymill/bin"


def node_environment(inputs: ManifestInputs, token_path: str | None, *, in_image: bool = True) -> dict[str, str]:
    """Return the variables of Ray's processes on every machine: authentication by token, and HAProxy for Ray Serve.

    `token_path` is the file with the token on the machine. None: the machine gets the token as RAY_AUTH_TOKEN, by a
    reference to a secret. Without the mode, Ray asks for a token only on those machines that find a token file.
    `in_image`: Ray runs in the image, whose program `raymill-haproxy` prepares HAProxy.
    """
    haproxy = {"RAY_SERVE_HAPROXY_BINARY_PATH": f"{_PROGRAMS}/{PROGRAM}"} if in_image else {}
    return {
        "RAY_AUTH_MODE": "token",
        **({"RAY_AUTH_TOKEN_PATH": token_path} if token_path else {}),
        **cluster_variables(inputs.spec.serve),
        **haproxy,
        "RAY_USAGE_STATS_ENABLED": "0",
    }
