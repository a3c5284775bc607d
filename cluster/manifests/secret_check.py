"""Refuse manifests that hold a secret instead of a reference to one."""

from __future__ import annotations

import re
from collections.abc import Mapping

# What a secret looks like -> what to write instead.
_PATTERNS = {
    re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----"): "a private key; name its file",
    re.compile(r"\b(AKIA|ASIA)[0-9A-Z]{16}\b"): "an access key of AWS; give the machine a role",
    re.compile(r"\bRAY_AUTH_TOKEN\b(?!_PATH)[\"']?\s*[:=]\s*[\"']?[^\s\"'$]+"): "Ray's token; name its file in "
    "RAY_AUTH_TOKEN_PATH",
    re.compile(r"(?i)\b[\w-]*(password|passwd|secret_?key|api_?key|access_?key)[\w-]*[\"']?\s*[:=]\s*[\"']?[^\s\"'${}/.]{8,}"):
    "a password or a key; name a file, a secret or a variable",
    re.compile(r"://[^/\s:@]+:[^/\s:@]+@"): "an address with a password; name a file, a secret or a variable",
}  # fmt: skip


def find_secrets(files: Mapping[str, str]) -> list[str]:
    """Return one sentence for each line of the files that holds a secret, without the secret itself."""
    return [
        f"{name}: line {number} holds {what}"
        for name, text in files.items()
        for number, line in enumerate(text.splitlines(), 1)
        for pattern, what in _PATTERNS.items()
        if pattern.search(line)
    ]
