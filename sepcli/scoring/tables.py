"""A report as text: tables, CSV, JSON."""

import csv
import io
import json
import math
from collections.abc import Sequence
from typing import Any

from sepcli.errors import one_line

MAYBE = ("infinite", "undefined")  # counts that are shown when they are not 0


def summary(report: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """(header, rows) of strings: a row for each target and statistic, a column for each metric."""
    header = ["target", "statistic", *(_title(metric) for metric in report["metrics"].values())]
    rows = []
    for target, scores in report["summary"].items():
        for statistic in _statistics(scores):
            cells = [
                _cell(scores[key][statistic], metric) if key in scores else "-"
                for key, metric in report["metrics"].items()
            ]
            rows.append([target, statistic.replace("_", " "), *cells])
    return header, rows


def _title(metric):
    return f"{metric['name']} {metric['unit']}".rstrip()


def _statistics(scores):
    """Which statistics of a target's scores to show."""
    entries = list(scores.values())
    always = [name for name in entries[0] if name not in (*MAYBE, "notes")]
    return always + [name for name in MAYBE if any(entry[name] for entry in entries)]


def _cell(value, metric):
    if isinstance(value, dict):  # reason -> how often
        value = sum(value.values())
    return str(value) if isinstance(value, int) else _number(value, metric)


def _number(value, metric, sign=""):
    return "-" if math.isnan(value) else f"{value:{sign}.{2 if metric['unit'] == 'dB' else 3}f}"


def comparison(report: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """(header, rows) of strings: a row for each target and metric in the report's comparison."""
    header = [
        "target",
        "metric",
        "old",
        "new",
        "change",
        "95% interval",
        "better",
        "worse",
        "count",
    ]
    rows, statistic = [], report["compared"]["statistic"]
    for target, scores in report["compared"]["summary"].items():
        for key, entry in scores.items():
            metric = report["metrics"][key]
            low, high = (_number(entry[end], metric, "+") for end in ("low", "high"))
            change = [
                _number(entry[f"old_{statistic}"], metric),
                _number(entry[f"new_{statistic}"], metric),
                _number(entry[f"{statistic}_difference"], metric, "+"),
            ]
            counts = [str(entry[name]) for name in ("better", "worse", "count")]
            rows.append([target, _title(metric), *change, f"{low} to {high}", *counts])
    return header, rows


def remarks(report: dict[str, Any]) -> list[str]:
    """Lines on how scores were measured and why some are missing, and on the comparison."""
    lines = []
    if framewise := [metric for metric in report["metrics"].values() if "frames" in metric]:
        frames = framewise[0]["frames"]
        lines.append(
            f"{', '.join(metric['name'] for metric in framewise)}: BSS Eval v4, of each item the "
            f"{frames['statistic']} of its frames of {frames['window_s']:g} s "
            f"every {frames['hop_s']:g} s"
        )
    for target, scenes in report.get("scenes", {}).items():
        lines.append(
            f"{target} is present in {scenes['present']} items and absent in {scenes['absent']}: "
            "suppression is over the latter, all others over the former"
        )
    for target, scores in report["summary"].items():
        for key, entry in scores.items():
            said = [*entry["notes"].items()]
            said += [(f"undefined, {why}", count) for why, count in entry["undefined"].items()]
            what = f"{report['metrics'][key]['name']} of {target}"
            lines += [f"{what}: {text} ({count})" for text, count in said]
    if compared := report.get("compared"):
        of = "mean of the differences"
        if compared["statistic"] != "mean":
            of = f"difference of the {compared['statistic'].replace('_', ' ')}s"
        lines.append(
            f"Compared with {compared['file']}: {compared['items']} items in both, "
            f"{compared['only_old']} only there, {compared['only_new']} only here; "
            f"change is the {of} with its 95 % bootstrap interval."
        )
    return lines


def tables(report: dict[str, Any]) -> list[tuple[list[str], list[list[str]]]]:
    """All (header, rows) of a report."""
    return [summary(report), *([comparison(report)] if "compared" in report else [])]


def text(report: dict[str, Any]) -> str:
    """The report as tables with aligned columns, and remarks."""
    return _document(report, aligned)


def markdown(report: dict[str, Any]) -> str:
    """The report as Markdown tables, and remarks."""
    return _document(report, _piped)


def _document(report, layout):
    parts = [layout(*table) for table in tables(report)]
    if lines := remarks(report):
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def aligned(header: Sequence[str], rows: Sequence[Sequence[str]], *, left: Any = range(2)) -> str:
    """A table of strings as lines of text; columns are flush right but for those in `left`."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    lines = []
    for row in (header, *rows):
        cells = [
            cell.ljust(width) if column in left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip() + "\n")
    return "".join(lines)


def outline(about: dict[str, Any]) -> str:
    """A dict as aligned lines of text, a line per entry; dicts in it are indented."""
    return "\n".join([*map(one_line, _lines(about)), ""])


def _lines(about, indent=""):
    """Yield the lines of a dict: numbers grouped by thousands, lists joined by commas."""
    width = max(map(len, about), default=0) + 2
    for key, value in about.items():
        if isinstance(value, dict):
            yield f"{indent}{key}"
            yield from _lines(value, indent + "  ")
            continue
        if isinstance(value, list | tuple):
            value = ", ".join(map(str, value))
        elif isinstance(value, int) and not isinstance(value, bool) and key != "sample_rate":
            value = f"{value:,}"
        elif isinstance(value, float):
            value = f"{value:g}"
        yield f"{indent}{key:{width}}{value}"


def _piped(header, rows):
    rule = [":--" if column < 2 else "--:" for column in range(len(header))]
    rows = [[cell.replace("|", "\\|") for cell in row] for row in (header, rule, *rows)]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def csv_text(report: dict[str, Any]) -> str:
    """The scores of every item, a line each; NaN is an empty field."""
    keys = list(report["metrics"])
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["key", "target", *keys])
    for item in report["items"]:
        scores = [item.get(key, math.nan) for key in keys]
        cells = ["" if math.isnan(score) else round(score, 6) for score in scores]
        writer.writerow([item["key"], item["target"], *cells])
    return buffer.getvalue()


def json_text(report: dict[str, Any]) -> str:
    """The report as JSON; NaN and infinities, which JSON lacks, become null."""
    return json.dumps(_plain(report), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _plain(value):
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_plain(entry) for entry in value]
    if isinstance(value, float):
        return round(value, 6) if math.isfinite(value) else None
    return value


FORMS = {"text": text, "markdown": markdown, "csv": csv_text, "json": json_text}
