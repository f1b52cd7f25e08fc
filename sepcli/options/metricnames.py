"""Types of options that name metrics."""

import math
from typing import Any

import click

from sepcli import metrics


class MetricNames(click.ParamType):
    """Names of metrics with commas between them, as a tuple."""

    name = "A,B,..."

    def convert(self, value: Any, param: Any, ctx: click.Context) -> tuple[str, ...]:
        names = [name.strip() for name in value.split(",")]
        return tuple(dict.fromkeys(check_metric(name, param, ctx) for name in names))


class Limit(click.ParamType):
    """`METRIC=NUMBER`, as a pair."""

    name = "METRIC=X"

    def convert(self, value: Any, param: Any, ctx: click.Context) -> tuple[str, float]:
        name, _, number = value.partition("=")
        try:
            if not math.isfinite(number := float(number)):
                raise ValueError
            return check_metric(name.strip(), param, ctx), number
        except ValueError:
            self.fail(f"{value!r} is not METRIC=NUMBER, such as si-sdri=5", param, ctx)


def check_metric(name: str, param: Any, ctx: click.Context) -> str:
    """Return `name`, or fail with the names there are and the most similar of them."""
    if name in metrics.METRICS:
        return name
    from difflib import get_close_matches

    close = get_close_matches(name.lower().replace("_", "-"), metrics.METRICS, 1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    message = f"No such metric {name!r}.{hint} There are {', '.join(metrics.METRICS)}."
    raise click.BadParameter(message, ctx, param)
