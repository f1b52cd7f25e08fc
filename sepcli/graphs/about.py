"""What a graph or a program that was exported is, as plain data."""

from pathlib import Path
from typing import Any

from sepcli.graphs.onnx import condition_of, open_graph, resemblance_of


def describe_graph(path: Path) -> dict[str, Any]:
    """Describe the graph `path`: its card, and what it takes; needs no torch unless a program does.

    Units are in the keys, as in `about.describe`. `weights_sha256` is of the file that it was made
    from, `companions` are graphs that belong to it. Raises SepcliError.
    """
    graph = open_graph(path)
    about, rate = graph.about, graph.about["sample_rate"]
    beside = [each.name for each in (condition_of(path), resemblance_of(path)) if each.is_file()]
    facts = {
        "file": str(path),
        "model": about["model"],
        "settings": about.get("settings", {}),
        "kind": graph.kind,
        "sources": about["sources"],
        "channels": about["channels"],
        "sample_rate": rate,
        "hop_ms": 1000 * about["hop"] / rate,
    }
    if "delay" in about:
        facts["latency_ms"] = 1000 * (about["hop"] + about["delay"]) / rate
    if about.get("length"):
        facts["length_s"] = about["length"] / rate
    return facts | {
        "front_end": about.get("front_end"),
        "conditioned": bool(about.get("conditions")),
        "companions": beside,
        "bytes": path.stat().st_size,
        "weights_sha256": about["sha256"],
        "licence": about["card"].get("licence") or "not stated",
        "card": about["card"],
    }
