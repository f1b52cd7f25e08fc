"""`sepcli doctor`: versions, devices and what is missing."""

import json
import os
import sys
from importlib import metadata

import pytest
from click.testing import CliRunner

import sepcli
from sepcli.cli import main
from sepcli.commands import doctor


def run(*arguments):
    return CliRunner().invoke(main, ["doctor", *arguments])


@pytest.fixture
def without(monkeypatch):
    """Make packages look as if they were not installed."""
    real = metadata.version

    def version(name, gone):
        if name in gone:
            raise metadata.PackageNotFoundError(name)
        return real(name)

    return lambda *gone: monkeypatch.setattr(metadata, "version", lambda n: version(n, gone))


def test_versions_devices_and_threads_are_shown():
    result = run("--json")
    assert (result.exit_code, result.stderr) == (0, "")
    about = json.loads(result.stdout)
    assert about["sepcli"] == sepcli.__version__
    assert about["python"] == ".".join(map(str, sys.version_info[:3]))
    for name in ("torch", "numpy", "onnxruntime", "pesq"):
        assert about["packages"][name] == metadata.version(name)
    assert about["devices"][0] == "cpu"
    assert about["threads"]["usable_cores"] == len(os.sched_getaffinity(0))
    assert about["threads"]["torch"] == 1  # as tests have it
    assert about["environment"]["OMP_NUM_THREADS"] == "1"
    assert about["missing"] == []


def test_the_text_says_the_same():
    lines = run().stdout.splitlines()
    assert lines[0].split() == ["sepcli", sepcli.__version__]
    assert ["torch", metadata.version("torch")] in [line.split() for line in lines]
    assert lines[-1] == "Nothing is missing."


def test_what_is_optional_and_missing_is_named_with_its_remedy(without):
    without("pesq", "onnxscript")
    result = run()
    assert result.exit_code == 0
    assert result.stdout.splitlines()[-2:] == [
        "pesq, for PESQ among the scores of sepcli eval: not installed; pip install 'sepcli[pesq]'",
        "onnxscript, for sepcli export, and quantize --target cpu: not installed; "
        "pip install 'sepcli[export]'",
    ]
    assert ["pesq", "missing"] in [line.split() for line in result.stdout.splitlines()]


def test_a_program_may_do_the_work_of_a_package(without, monkeypatch, tmp_path):
    without("av")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert run().stdout.splitlines()[-1] == (
        "av, for m4a, webm, wma and other sound that libsndfile lacks: not installed; "
        "pip install 'sepcli[av]', or install ffmpeg"
    )
    (tmp_path / "ffmpeg").touch(mode=0o755)
    assert run().stdout.splitlines()[-1] == "Nothing is missing."


def test_what_is_required_and_missing_is_an_error(without):
    without("soxr")
    result = run("--json")
    assert result.exit_code == 1
    assert result.stderr == "Error: soxr: missing or broken, see above\n"
    [entry] = json.loads(result.stdout)["missing"]
    assert entry["get"] == "pip install soxr"


def test_a_torch_that_cannot_be_loaded_is_an_error(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)  # so that its import fails
    result = run()
    assert result.exit_code == 1
    assert "torch, for models: import of torch halted; None in sys.modules; pip" in result.stdout


def test_features_of_processors_are_those_that_the_system_tells(monkeypatch, tmp_path):
    told = "model name\t: A Processor\nflags\t\t: fpu sse2 avx2 avx512_vnni avx2fake\n"
    (tmp_path / "cpuinfo").write_text(told)
    monkeypatch.setattr(doctor, "CPUINFO", str(tmp_path / "cpuinfo"))
    found = doctor.processor()
    assert (found["name"], list(found["features"])) == ("A Processor", ["avx2", "avx512_vnni"])
    monkeypatch.setattr(doctor, "CPUINFO", str(tmp_path / "nothing"))
    assert doctor.processor()["features"] is None


def test_the_cache_is_where_graphs_and_downloads_are_kept(monkeypatch, tmp_path):
    from sepcli.commands.doctor import places

    assert places()["cache"] == "none: SEPCLI_CACHE=off"
    monkeypatch.setenv("SEPCLI_CACHE", str(tmp_path))
    assert places()["cache"] == str(tmp_path)
