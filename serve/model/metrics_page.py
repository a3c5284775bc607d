"""One Prometheus page with the metrics of many replicas.

Each replica labels its own samples with its name and groups them by metric, so the replica that is scraped only joins
texts: with 200 replicas that takes milliseconds, and its event loop answers requests meanwhile. The page does not sum
samples: a sum would fall when a replica stops, Prometheus would take that for a reset of the counters, and it would
count the remaining total again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple


class Family(NamedTuple):
    """The samples of one metric."""

    header: str
    """Its HELP and TYPE lines."""
    samples: str
    """Its samples, a line each."""


#: The metrics of one page by name.
Families = Mapping[str, Family]


def label_families(page: str, replica: str) -> dict[str, Family]:
    """Return the metrics of a page that `prometheus_client.generate_latest` wrote; each sample gets a label `replica`."""
    label = replica.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
    families: dict[str, Family] = {}
    header: list[str] = []
    samples: list[str] = []
    name = ""
    for line in [*page.split("\n"), "# HELP  "]:  # not `splitlines`: label values may have any separator but \n
        if line.startswith("# HELP "):
            if name and not name.endswith("_created"):  # when a counter was created; nothing uses it
                families[name] = Family("\n".join(header) + "\n", "".join(samples))
            name, header, samples = line.split(" ", 3)[2], [], []
        if line.startswith("#"):
            header.append(line)
        elif line:
            samples.append(_label_sample(line, label))
    return families


def _label_sample(line: str, label: str) -> str:
    """Return a sample's line with the label `replica` before its other labels. The names of metrics have no braces."""
    head, brace, rest = line.partition("{")
    if brace:
        return f'{head}{{replica="{label}",{rest}\n'
    name, _, value = line.partition(" ")
    return f'{name}{{replica="{label}"}} {value}\n'


def join_families(parts: Iterable[Families]) -> str:
    """Return one page with the samples of all `parts`. A metric's help is that of the first part that has the metric."""
    headers: dict[str, str] = {}
    samples: dict[str, list[str]] = {}
    for families in parts:
        for name, family in families.items():
            headers.setdefault(name, family.header)
            samples.setdefault(name, []).append(family.samples)
    return "".join(header + "".join(samples[name]) for name, header in headers.items())
