"""Scores of an estimate against its reference, by name; nothing heavy is imported to list them.

Every metric is a pure function

    metric(estimate, reference, sample_rate, mixture=None) -> Score

estimate, reference and mixture are arrays (C, T) of the same shape; the reference of a metric that
needs none may be None. One that needs interferers takes `interferers`, too, a list of such arrays.
A `Score` is a float that can say why it is NaN. Wrong shapes raise ValueError. Metrics that are
framewise need all sources at once and give a series; several may share one function of the form of
`sepcli.metrics.bsseval.bss_eval_blocks`.

Defaults are scored in the order of the table.
"""

from importlib import import_module
from importlib.util import find_spec
from typing import Any, NamedTuple

from sepcli.errors import SepcliError


class Metric(NamedTuple):
    """What can be said of a metric without importing it."""

    function: str  # "module:function"
    unit: str
    definition: str
    needs_mixture: bool = False
    needs: str | None = None  # a package that may be missing, and the extra that brings it
    framewise: bool = False  # of all sources at once, and many frames
    needs_reference: bool = True
    more_is_better: bool = True
    default_for: str = ""  # scored if nothing else is asked for: of "any" target, "stems", "speech"
    scene: str = ""  # where a speaker is extracted: only if the target is "present", or "absent"
    needs_interferers: bool = False  # takes references of who else speaks, if there are any


BSS_EVAL = "sepcli.metrics.bsseval:bss_eval_blocks"

METRICS = {
    "sdr": Metric(
        BSS_EVAL,
        "dB",
        "BSS Eval v4: energy of the reference over energy of (estimate - reference), of frames",
        framewise=True,
        default_for="stems",
    ),
    "isr": Metric(
        BSS_EVAL,
        "dB",
        "BSS Eval v4: reference over what filters of 512 taps on it add, of frames",
        framewise=True,
    ),
    "sir": Metric(
        BSS_EVAL,
        "dB",
        "BSS Eval v4: filtered reference over what filters on the other references add, of frames",
        framewise=True,
    ),
    "sar": Metric(
        BSS_EVAL,
        "dB",
        "BSS Eval v4: all filtered references over the rest of the estimate, of frames",
        framewise=True,
    ),
    "si-sdri": Metric(
        "sepcli.metrics.sisdr:si_sdr_improvement",
        "dB",
        "SI-SDR of the estimate minus SI-SDR of the mixture",
        needs_mixture=True,
        default_for="any",
    ),
    "si-sdr": Metric(
        "sepcli.metrics.sisdr:si_sdr",
        "dB",
        "scale-invariant signal-to-distortion ratio of zero-mean signals, mean over channels",
        default_for="any",
    ),
    "snri": Metric(
        "sepcli.metrics.snr:snr_improvement",
        "dB",
        "SNR of the estimate minus SNR of the mixture",
        needs_mixture=True,
    ),
    "snr": Metric(
        "sepcli.metrics.snr:snr",
        "dB",
        "energy of the reference over energy of (estimate - reference), all channels together",
    ),
    "pesq": Metric(
        "sepcli.metrics.pesq:pesq",
        "",
        "PESQ (MOS-LQO), wide band from 16 kHz on, else narrow band; mean over channels",
        needs="pesq",
        default_for="speech",
    ),
    "pesq-wb": Metric(
        "sepcli.metrics.pesq:pesq_wide_band",
        "",
        "PESQ (MOS-LQO, ITU-T P.862.2 wide band) at 16 kHz, mean over channels",
        needs="pesq",
    ),
    "pesq-nb": Metric(
        "sepcli.metrics.pesq:pesq_narrow_band",
        "",
        "PESQ (MOS-LQO, ITU-T P.862.1 narrow band) at 8 kHz, mean over channels",
        needs="pesq",
    ),
    "stoi": Metric(
        "sepcli.metrics.stoi:stoi",
        "",
        "short-time objective intelligibility at 10 kHz, mean over channels",
        default_for="speech",
    ),
    "estoi": Metric(
        "sepcli.metrics.stoi:extended_stoi",
        "",
        "extended short-time objective intelligibility at 10 kHz, mean over channels",
    ),
    "right-speaker": Metric(
        "sepcli.metrics.speaker:right_speaker",
        "",
        "share of items whose estimate is nearer, by SI-SDR, to the target than to the interferers",
        needs_mixture=True,
        default_for="extraction",
        scene="present",
        needs_interferers=True,
    ),
    "suppression": Metric(
        "sepcli.metrics.speaker:suppression",
        "dB",
        "energy of the mixture over energy of the estimate where the target is absent",
        needs_mixture=True,
        default_for="extraction",
        scene="absent",
    ),
}


def find(name: str) -> Metric:
    """The `Metric` called `name`, e.g. "si-sdr"; SepcliError when there is none."""
    if name not in METRICS:
        raise SepcliError(f"unknown metric {name!r}; choose from {', '.join(METRICS)}")
    return METRICS[name]


def is_installed(name: str) -> bool:
    """Whether the package that the metric called `name` needs is there."""
    package = find(name).needs
    return package is None or find_spec(package) is not None


def remedy(name: str) -> str:
    """How to get what the metric called `name` needs."""
    package = find(name).needs
    return f"pip install 'sepcli[{package}]'" if package else "install sepcli again"


def load(name: str) -> Any:
    """The function of the metric called `name`; SepcliError when its package cannot be imported."""
    module, function = find(name).function.split(":")
    try:
        return getattr(import_module(module), function)
    except ImportError as error:
        raise SepcliError(
            f"metric {name}: {error}; {remedy(name)}, or leave {name} out of --metrics"
        ) from error


def key(name: str) -> str:
    """The metric's name in JSON and CSV, which ends with its unit: si-sdr is "si_sdr_db"."""
    return "_".join(filter(None, [name.replace("-", "_"), METRICS[name].unit.lower()]))
