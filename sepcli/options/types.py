"""Types of the values that options take."""

import math
from typing import TYPE_CHECKING, Any

import click

from sepcli.errors import UsageError

if TYPE_CHECKING:
    from sepcli.cluster.shard import Shard


class Number(click.FloatRange):
    """A number within limits, which every option has: "nan" is within all, so it is refused."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a finite number.", param, ctx)
        return number


class Range(click.ParamType):
    """`LO:HI` or one number, as the pair (lo, hi) of floats (or ints) within [minimum, maximum].

    Both are finite and lo <= hi; -0 is 0, so that hi - lo has no sign where they are equal.
    """

    def __init__(
        self,
        number: type[float] = float,
        minimum: float | None = None,
        maximum: float | None = None,
    ) -> None:
        self.number, self.minimum, self.maximum = number, minimum, maximum
        self.name = "LO:HI"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[float, float]:
        if isinstance(value, tuple):
            return value
        low, colon, high = str(value).partition(":")
        try:
            low, high = self.number(low) + 0, self.number(high if colon else low) + 0
            if not math.isfinite(high - low):
                raise ValueError
        except ValueError:
            self.fail(f"{value!r} is not a range; write one like -5:15, or a number", param, ctx)
        if low > high:
            self.fail(f"{value!r} starts above its end; write the lower number first", param, ctx)
        if self.minimum is not None and low < self.minimum:
            self.fail(f"{value!r} is below {self.minimum}, the lowest value allowed", param, ctx)
        if self.maximum is not None and high > self.maximum:
            self.fail(f"{value!r} is above {self.maximum}, the highest value allowed", param, ctx)
        return low, high


class ShardType(click.ParamType):
    """`i/n`, as a `Shard`."""

    name = "I/N"

    def convert(self, value: Any, param: Any, ctx: click.Context | None) -> "Shard":
        from sepcli.cluster.shard import Shard, parse

        if isinstance(value, Shard):
            return value
        try:
            return parse(value)
        except UsageError as error:
            self.fail(str(error), param, ctx)


class Grouped(click.Command):
    """A command whose help shows its options under the titles of `groups`, {title: (names)}."""

    def __init__(self, *args: Any, groups: dict[str, tuple[str, ...]], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.groups = groups

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write a section for each group, and one for all other options."""
        records = {param.name: param.get_help_record(ctx) for param in self.get_params(ctx)}
        left = {name: record for name, record in records.items() if record}
        for title, names in self.groups.items():
            with formatter.section(title):
                formatter.write_dl([left.pop(name) for name in names])
        with formatter.section("Other options"):
            formatter.write_dl(list(left.values()))
