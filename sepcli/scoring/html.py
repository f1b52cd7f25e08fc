"""A report as one HTML page that needs no other file and no network."""

import math
from base64 import b64encode
from collections.abc import Iterable, Sequence
from html import escape
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

from sepcli import metrics
from sepcli.scoring import boxes, curves, gallery, tables
from sepcli.scoring.evaluate import Row

PICTURE_PX = 128  # height of a spectrogram on the page
MOST_ITEMS = 1000  # rows of the table of all scores


def page(
    report: dict[str, Any],
    rows: Sequence[Row],
    items: Iterable[tuple[str, Sequence[Any]]] = (),
    *,
    title: str | None = None,
    model: str | None = None,
) -> str:
    """The page of a `report.build` of `evaluate.Row`s, and of (key, [gallery.Excerpt, ...]).

    model: a model (its name, file or run folder) that is described there, with the curves of its
    training. Raises SepcliError if there is none.
    """
    title = title or "Scores of " + (", ".join(report["summary"]) or "nothing")
    parts = [_summary(report), _failed(report), _model(model) if model else ""]
    parts += [_plots(report, rows), _listening(items, report), _scores(report)]
    template = Template(
        resources.files("sepcli.scoring").joinpath("report.html").read_text("utf-8")
    )
    return template.substitute(
        title=escape(title), version=escape(report["sepcli"]), body="".join(parts)
    )


def _summary(report):
    said = "".join(f"<p>{escape(line)}</p>\n" for line in tables.remarks(report))
    meanings = "".join(
        f"<dt>{escape(metric['name'])}</dt><dd>{escape(metric['definition'])}</dd>\n"
        for metric in report["metrics"].values()
    )
    shown = "".join(_table(*table) for table in tables.tables(report))
    return f"{shown}{said}<details><summary>Definitions</summary><dl>{meanings}</dl></details>\n"


def _table(header, rows):
    head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
    body = "".join(
        f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>\n" for row in rows
    )
    return (
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead>\n'
        f"<tbody>{body}</tbody></table></div>\n"
    )


def _model(name):
    """What `sepcli info` says of the model, and how its training went."""
    from sepcli.about import describe  # needs torch

    about = describe(name)
    records = curves.of_run(Path(about["file"]).parent)
    curve = curves.plots(records, about["card"].get("steps"))
    trained = f"<h2>Training</h2>\n{curve}" if curve else ""
    outline = escape(tables.outline(about))
    return (
        f"<h2>Model</h2>\n<p>{escape(name)}: {escape(about['model'])}, "
        f"{about['parameters']:,} parameters</p>\n<details><summary>Settings</summary>"
        f"<pre>{outline}</pre></details>\n{trained}"
    )


def _failed(report):
    if not report["failed"]:
        return ""
    lines = "".join(f"<li>{escape(item['error'])}</li>\n" for item in report["failed"])
    return f"<h2>Not scored</h2>\n<ul>{lines}</ul>\n"


def _plots(report, rows):
    """A plot for each metric: of the frames of every item, or of the items of every target."""
    plots = []
    scored = [row for row in rows if not row.error]
    for metric in report["metrics"].values():
        name, unit = metric["name"], metric["unit"]
        of = {
            target: [row for row in scored if row.target == target and name in row.scores]
            for target in report["summary"]
        }
        everything = [(target, [row.scores[name] for row in found]) for target, found in of.items()]
        plots.append(boxes.plot(f"{name}: items", everything, unit))
        if metrics.METRICS[name].framewise:
            for target, found in of.items():
                found = sorted(found, key=lambda row: _sortable(row.scores[name]))
                frames = [(row.key, row.frames[name]) for row in found]
                plots.append(boxes.plot(f"{name} of {target}: frames of each item", frames, unit))
    return (
        "<h2>Distributions</h2>\n"
        '<p class="faint">A box is the middle half and its line the median; whiskers reach from '
        f"the 5th to the 95th percentile.</p>\n{''.join(plots)}"
    )


def _sortable(score):
    return -math.inf if math.isnan(score) else score


def _listening(items, report):
    shown = [
        f"<h3>{escape(key)}</h3>\n<p>{escape(_scores_of(key, report))}</p>\n"
        f"<div class='item'>{''.join(map(_figure, excerpts))}</div>\n"
        for key, excerpts in items
    ]
    if not shown:
        return ""
    return (
        f'<h2>Listening samples</h2>\n<p class="faint">The {len(shown)} worst and best by the '
        f"first score, from the worst on: {gallery.SECONDS} s at most, from where the first "
        f"target is loudest, as MP3. Spectrograms go from {gallery.LOWEST_HZ} Hz to "
        f"{gallery.HIGHEST_HZ // 1000} kHz or half the sample rate, {gallery.RANGE_DB} dB deep."
        f"</p>\n{''.join(shown)}"
    )


def _scores_of(key, report):
    """What an item scores, in words."""
    return "; ".join(
        f"{item['target']}: "
        + ", ".join(
            f"{metric['name']} {_number(item.get(name, math.nan))} {metric['unit']}".rstrip()
            for name, metric in report["metrics"].items()
        )
        for item in report["items"]
        if item["key"] == key
    )


def _axes(excerpt):
    """The labels beside and below a spectrogram."""
    low, top = excerpt.band_hz
    labels = []
    for hz in (100, 300, 1000, 3000, 10_000):
        if low < hz < top:
            y = PICTURE_PX * math.log(top / hz) / math.log(top / low)
            label = f"{hz // 1000} kHz" if hz >= 1000 else f"{hz} Hz"
            labels.append(f'<span class="hz" style="top:{y:.0f}px">{label}</span>')
    for part in (0, 0.5, 1):
        second = excerpt.start_s + part * excerpt.seconds
        left = f"calc(3.2rem + (100% - 4.4rem) * {part})"
        labels.append(f'<span class="s" style="left:{left}">{second:.3g} s</span>')
    return "".join(labels)


def _figure(excerpt):
    name = escape(excerpt.name)
    picture, sound = (b64encode(data).decode() for data in (excerpt.picture, excerpt.sound))
    return (
        f'<figure><figcaption>{name}</figcaption><div class="axes"><img alt="Spectrogram of {name}"'
        f' src="data:image/png;base64,{picture}">{_axes(excerpt)}</div>'
        f'<audio controls preload="none" src="data:audio/mpeg;base64,{sound}"></audio></figure>\n'
    )


def _scores(report):
    keys = list(report["metrics"])
    rows = [
        [item["key"], item["target"], *(_number(item.get(key, math.nan)) for key in keys)]
        for item in report["items"][:MOST_ITEMS]
    ]
    header = ["item", "target", *(f"{m['name']} {m['unit']}" for m in report["metrics"].values())]
    left = len(report["items"]) - len(rows)
    more = f"<p>{left} more are left out here; --csv has them all.</p>\n" if left else ""
    return (
        f"<h2>All scores</h2>\n<details><summary>{len(rows)} rows</summary>\n"
        f"{_table(header, rows)}{more}</details>\n"
    )


def _number(score):
    return "-" if math.isnan(score) else f"{score:.3f}"
