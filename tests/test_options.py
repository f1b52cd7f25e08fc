"""Numbers and ranges that options take: of every command, also those to come."""

import io
import math
import re
import sys
from types import SimpleNamespace

import click
import numpy as np
import pytest
from click.types import FloatParamType
from hypothesis import given
from hypothesis import strategies as st

from sepcli import cli, options
from sepcli.options import reporting

PARAMETERS = [
    pytest.param(parameter, id=f"{name} {parameter.opts[0]}")
    for name in cli.COMMANDS
    for parameter in cli.main.get_command(click.Context(cli.main), name).params
]


def of_kind(*kinds):
    found = [each for each in PARAMETERS if isinstance(each.values[0].type, kinds)]
    assert found
    return pytest.mark.parametrize("parameter", found)


def convert(parameter, text):
    return parameter.type.convert(text, parameter, None)


@of_kind(FloatParamType)
@pytest.mark.parametrize("text", ["nan", "inf", "-inf", "1e999"])
def test_a_number_is_finite(parameter, text):
    with pytest.raises(click.BadParameter):
        convert(parameter, text)


@of_kind(options.Range)
@pytest.mark.parametrize(
    "text", ["nan", "inf", "0:inf", "-inf:0", "nan:1", "1:0", "1:2:3", ":", ""]
)
def test_a_range_is_two_finite_numbers_in_order(parameter, text):
    with pytest.raises(click.BadParameter):
        convert(parameter, text)


@given(st.floats(-1e9, 1e9), st.floats(-1e9, 1e9))
def test_every_range_can_be_drawn_from(one, other):
    low, high = sorted((one, other))
    pair = options.Range().convert(f"{low!r}:{high!r}", None, None)
    assert pair == (low, high)
    assert low <= np.random.default_rng(0).uniform(*pair) <= high


@pytest.mark.parametrize("text", ["0:-0", "-0:0", "-0", "-0:-0", "0:-0.0", "-0.0"])
def test_zeros_have_no_sign(text):
    low, high = options.Range().convert(text, None, None)
    assert (low, high) == (0, 0)
    assert math.copysign(1, high - low) == math.copysign(1, low) == 1
    assert np.random.default_rng(0).uniform(low, high) == 0


@of_kind(options.Range)
def test_a_range_may_be_one_number_within_its_limits(parameter):
    kind = parameter.type
    number = kind.number(1 if kind.minimum is None else kind.minimum)
    assert convert(parameter, str(number)) == convert(parameter, f"{number}:{number}")
    for limit, beyond in ((kind.minimum, -1), (kind.maximum, 1)):
        if limit is not None and math.isfinite(limit):
            with pytest.raises(click.BadParameter, match="allowed"):
                convert(parameter, str(kind.number(limit + beyond)))


@pytest.mark.parametrize("text", ["0:-10", "-0:-10", "-10:0"])
def test_the_range_of_a_decay_has_no_sign_at_0(text):
    from sepcli.commands.rt60 import DecayRange

    start, stop = DecayRange().convert(text, None, None)
    assert (start, stop) == (0, -10)
    assert math.copysign(1, start) == 1


@pytest.mark.parametrize("text", ["si-sdri=nan", "si-sdri=inf", "si-sdri", "si-sdri=x"])
def test_a_limit_is_a_finite_number(text):
    from sepcli.commands.eval import Limit

    with pytest.raises(click.BadParameter, match="is not METRIC=NUMBER"):
        Limit().convert(text, None, None)


class Terminal(io.StringIO):
    """Standard error, or input, that is looked at by somebody."""

    def isatty(self):
        return True


def drawn(monkeypatch, records, total, progress="auto", quiet=False):
    """What a bar looks like after each record, and halfway through the next one."""
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setattr(sys, "stdin", Terminal())
    monkeypatch.setenv("COLUMNS", "100")
    bar = options.Progress("Separating", progress, quiet)
    for _ in bar.watch(records, total):
        bar.within(0.42)
        if bar._bar:
            bar._bar.refresh()
    return screen.getvalue()


def test_a_bar_tells_how_many_are_done_and_how_much_of_the_next(monkeypatch):
    screen = drawn(monkeypatch, [{"key": key} for key in "abc"], 3)
    for part in ("Separating", "1/3", "2/3", "3/3", "42%", ":"):
        assert part in screen
    screen = drawn(monkeypatch, [{"key": key} for key in "abc"], None)
    assert "2/?" in screen


def passing(seconds, clock):
    """400 records, each of which takes so long by a clock."""
    for key in range(400):
        clock[0] += seconds
        yield {"key": str(key)}


def test_a_bar_tells_how_long_the_rest_will_take(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("rich.console.monotonic", lambda: clock[0])
    screen = drawn(monkeypatch, passing(1.0, clock), 400)
    told = [
        (int(done), 3600 * int(hours) + 60 * int(minutes) + int(seconds))
        for done, hours, minutes, seconds in re.findall(
            r"(\d+)/400 +42% .*?(\d+):(\d\d):(\d\d)", screen
        )
    ]
    assert {done for done, _ in told} >= set(range(10, 400))
    for done, left_s in told[20:]:  # the pace is not known at first
        assert left_s == pytest.approx(400 - done, abs=max(3, 0.05 * (400 - done))), done


def test_runs_on_a_cluster_tell_how_long_the_rest_will_take_now_and_then(monkeypatch, capsys):
    clock = [0.0]
    monkeypatch.setattr(reporting, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    pace = reporting.Pace("Separating")
    for done, _ in enumerate(passing(2.0, clock), start=1):
        pace.tell(done, 400)
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 800 // 30
    assert told[0] == "Separating: 15 of 400, 0.5 per second, 13 min left"
    assert told[-1] == "Separating: 390 of 400, 0.5 per second, 20 s left"
    clock[0] += 1e5
    pace.tell(7, None)
    assert capsys.readouterr().err == "Separating: 7 of ?, 6.94e-05 per second\n"


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.4, "0 s"), (59, "59 s"), (61, "1 min"), (7100, "118 min"),
                           (7200, "2.0 h"), (1e6, "277.8 h")]
)  # fmt: skip
def test_a_time_in_words_is_rough(seconds, words):
    assert reporting.in_words(seconds) == words


@pytest.mark.parametrize("settings", [{"quiet": True}, {"progress": "none"}])
def test_there_is_no_bar_for_who_wants_none(monkeypatch, settings):
    assert drawn(monkeypatch, [{"key": "a"}], 1, **settings) == ""


def test_json_is_a_line_for_every_record(monkeypatch):
    screen = drawn(monkeypatch, [{"key": "a", "outputs": ["x"]}], 1, progress="json")
    assert screen == '{"key": "a", "outputs": ["x"]}\n'


@pytest.mark.parametrize(
    ("paths", "line"),
    [
        ([], ""),
        (["out/a.wav"], "Wrote out/a.wav\n"),
        (["out/a.wav", "out/b.wav"], "Wrote 2 files to out\n"),
        (["out/a/x.wav", "out/b/x.wav", "out/b/y.wav"], "Wrote 3 files to out\n"),
        (["out.tar", "out.tar"], "Wrote 2 files to out.tar\n"),
        (["a.wav", "b.wav"], "Wrote 2 files to .\n"),
        (["standard output"], ""),
        (["/else/a.wav", "/else/where/b.wav"], "Wrote 2 files to /else\n"),
    ],
)
def test_the_last_line_says_where_the_outputs_are(capsys, paths, line):
    written = options.Written()
    for path in paths:
        written.add(path)
    written.tell(quiet=True)
    assert capsys.readouterr().err == ""
    written.tell()
    assert capsys.readouterr().err == line
