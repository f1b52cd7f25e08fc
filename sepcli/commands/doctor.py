"""`sepcli doctor`: what is installed, what it runs on, and what is missing."""

import json
import os
import platform
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import click

import sepcli
from sepcli import options
from sepcli.errors import SepcliError

REQUIRED = (
    "click", "h5py", "numpy", "onnxruntime", "pystoi", "pyyaml", "rich", "safetensors", "scipy",
    "soundfile", "soxr", "tensorboard", "threadpoolctl", "torch",
)  # fmt: skip
OPTIONAL = {  # extra -> its packages, and what needs them
    "pesq": (("pesq",), "PESQ among the scores of sepcli eval"),
    "av": (("av",), "m4a, webm, wma and other sound that libsndfile lacks"),
    "plot": (("matplotlib",), "--plot of sepcli rt60 and rir-decay"),
    "export": (("onnx", "onnxscript"), "sepcli export, and quantize --target cpu"),
    "models": (
        ("demucs", "pymss-core"),
        "other people's music models: NAME.th, NAME.ckpt, bags of Demucs",
    ),
    "serve": (
        ("fastapi", "starlette", "uvicorn", "websockets", "python-multipart"),
        "sepcli serve",
    ),
    "cluster": (("dask", "distributed"), "--cluster of commands over many items"),
    "remote": (("fsspec", "s3fs"), "inputs and outputs by URL, s3://…"),
}
INSTEAD = {"av": "ffmpeg"}  # programs that do the work of a package
SETTINGS = (  # environment variables that change how commands run
    "OMP_NUM_THREADS", "OMP_WAIT_POLICY", "CUDA_VISIBLE_DEVICES", "SEPCLI_CACHE", "SEPCLI_MODELS",
    "TMPDIR",
)  # fmt: skip
CPUINFO = "/proc/cpuinfo"
FEATURES = {  # of processors, as Linux calls them -> what they are good for
    "avx2": "eight floats at a time",
    "avx512f": "sixteen floats at a time",
    "avx512_vnni": "8-bit graphs at full speed",
    "avx_vnni": "8-bit graphs at full speed",
    "asimd": "four floats at a time",
    "asimddp": "8-bit graphs at full speed",
}


@click.command("doctor")
@options.as_json
def command(as_json: bool) -> None:
    """Show versions, devices, threads and what is missing.

    \b
        $ sepcli doctor
        $ sepcli doctor --json | jq .missing

    Exits with 1 when something that every command may need is missing or broken.
    """
    about = examine()
    click.echo(json.dumps(about) if as_json else text(about), nl=as_json)
    if broken := [entry["what"] for entry in about["missing"] if entry["required"]]:
        raise SepcliError(f"{', '.join(broken)}: missing or broken, see above")


def text(about: dict[str, Any]) -> str:
    """What was found as aligned lines; what is missing as sentences."""
    from sepcli.scoring.tables import outline

    missing = [
        f"{entry['what']}, for {entry['for']}: {entry['why']}; {entry['get']}"
        for entry in about["missing"]
    ]
    found = {key: value for key, value in about.items() if key != "missing"}
    return outline(found) + "\n".join([*(missing or ["Nothing is missing."]), ""])


def examine() -> dict[str, Any]:
    """All that was found, as plain data."""
    devices, threads, why = torch_facts()
    return {
        "sepcli": sepcli.__version__,
        "python": platform.python_version(),
        "system": platform.platform(),
        "packages": {name: version(name) or "missing" for name in packages()},
        "programs": {name: shutil.which(name) or "missing" for name in INSTEAD.values()},
        "devices": devices,
        "threads": threads,
        "processor": processor(),
        "places": places(),
        "environment": {name: os.environ[name] for name in SETTINGS if name in os.environ},
        "missing": [*missing_packages(), *([why] if why and version("torch") else [])],
    }


def packages() -> list[Any]:
    """All packages that commands use, required ones first."""
    return [*REQUIRED, *(name for names, _ in OPTIONAL.values() for name in names)]


def version(package: str) -> str | None:
    """The version of a package, or None if it is not installed."""
    from importlib import metadata

    with suppress(metadata.PackageNotFoundError):
        return metadata.version(package)
    return None


def missing_packages() -> Iterator[dict[str, Any]]:
    """Yield what is missing, and how to get it."""
    for name in REQUIRED:
        if version(name) is None:
            yield lack(name, "every command that needs it", f"pip install {name}", required=True)
    for extra, (names, purpose) in OPTIONAL.items():
        for name in names:
            if version(name) is None and not shutil.which(INSTEAD.get(name, "")):
                remedy = f"pip install 'sepcli[{extra}]'"
                remedy += f", or install {INSTEAD[name]}" if name in INSTEAD else ""
                yield lack(name, purpose, remedy)


def lack(
    what: str, purpose: str, remedy: str, *, why: str = "not installed", required: bool = False
) -> dict[str, Any]:
    """An entry of what is missing."""
    return {"what": what, "for": purpose, "why": why, "get": remedy, "required": required}


def torch_facts() -> tuple[list[str], dict[str, int | None], dict[str, Any] | None]:
    """(devices, threads, what is wrong with torch or None)."""
    threads = {"usable_cores": usable_cores()}
    try:
        import torch
    except Exception as error:  # a library that it loads may be missing, or of another machine
        reason = " ".join(str(error).split())[:200]
        return [], threads, lack(
            "torch", "models", "pip install --force-reinstall torch", why=reason, required=True
        )  # fmt: skip
    devices = ["cpu"]
    for number in range(torch.cuda.device_count()):
        devices.append(f"cuda:{number} {torch.cuda.get_device_name(number)}")
    if torch.backends.mps.is_available():
        devices.append("mps")
    threads["torch"] = torch.get_num_threads()
    return devices, threads, None


def usable_cores() -> int | None:
    """How many cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count()


def processor() -> dict[str, Any]:
    """Its name, and which of `FEATURES` it has; None where the system does not tell."""
    try:
        told = Path(CPUINFO).read_text()
    except OSError:
        return {"name": platform.processor() or platform.machine(), "features": None}
    name = re.search(r"^model name\s*:\s*(.*)$", told, re.MULTILINE)
    flags = re.search(r"^(?:flags|Features)\s*:\s*(.*)$", told, re.MULTILINE)
    flags = set(flags[1].split()) if flags else set()
    return {
        "name": name[1] if name else platform.machine(),
        "features": {flag: what for flag, what in FEATURES.items() if flag in flags},
    }


def places() -> dict[str, Any]:
    """Where the package, its temporary files, and made graphs and downloaded weights are."""
    import tempfile

    from sepcli.models.weights.cache import VARIABLE, cache_folder

    temporary, cache = tempfile.gettempdir(), cache_folder()
    return {
        "package": str(Path(sepcli.__file__).parent),
        "python": sys.executable,
        "temporary": temporary,
        "temporary_free_mb": shutil.disk_usage(temporary).free // 1_000_000,
        "cache": str(cache) if cache else f"none: {VARIABLE}=off",
    }
