"""Write what a card says in numbers: python3 card.py RUN 'SET=REPORT.json'... > card.md

RUN is the folder of a training, REPORT.json what `sepcli eval --json` printed. Needs Python alone.
"""

import json
import statistics
import sys
from pathlib import Path


def mean(values):
    """Mean and standard error of the scores that there are, "7.04 ± 0.46"."""
    values = [value for value in values if value is not None]
    if len(values) < 2:
        return f"{values[0]:.2f}" if values else "-"
    error = statistics.stdev(values) / len(values) ** 0.5
    return f"{statistics.fmean(values):.{digits(error)}f} ± {error:.{digits(error)}f}"


def title(name):
    """A metric as it is written: SI-SDRi, PESQ, suppression."""
    if name in ("right-speaker", "suppression"):
        return name
    return name.upper().replace("SDRI", "SDRi").replace("SNRI", "SNRi")


def digits(error):
    """Decimals worth writing beside such an error."""
    return 3 if error < 0.02 else 2


def rows(reports):
    """The lines of a table of reports, {set: report}: a line for each target of a set."""
    metrics = {
        key: about for report in reports.values() for key, about in report["metrics"].items()
    }
    names = [f"{title(about['name'])} {about['unit']}".strip() for about in metrics.values()]
    yield f"| mixtures | target | items | {' | '.join(names)} |"
    yield f"|---|---|{'--:|' * (1 + len(names))}"
    for name, report in reports.items():
        for target in report["summary"]:
            items = [item for item in report["items"] if item["target"] == target]
            scores = [mean(item.get(key) for item in items) for key in metrics]
            yield f"| {name} | {target} | {len(items)} | {' | '.join(scores)} |"


def card(run, reports):
    """The lines of the card: of the training, where there was one, and of the reports."""
    trained = Path(run) / "scores.json"
    if trained.exists():
        yield from training(json.loads(trained.read_text(encoding="utf-8")))
    yield "Means ± one standard error:"
    yield ""
    yield from rows(reports)


def training(scores):
    """What a run says of itself, as lines."""
    yield (
        f"{scores['parameters']:,} parameters; {scores['minutes']:.1f} minutes, "
        f"{scores['steps']:,} steps, {scores['items_seen']:,} items; in validation "
        f"{scores['si_sdr_db']:.2f} dB SI-SDR, "
        f"{scores['improvement_db']:.2f} dB better than untrained."
    )
    yield ""
    yield f"    {scores['command']}"
    yield ""


def main():
    run, *named = sys.argv[1:]
    pairs = [entry.rpartition("=")[::2] for entry in named]
    reports = {name: json.loads(Path(path).read_text(encoding="utf-8")) for name, path in pairs}
    print("\n".join(card(run, reports)))


if __name__ == "__main__":
    main()
