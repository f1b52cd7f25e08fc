"""Training with 16-bit products, and compiled: what changes, and what must not."""

import pytest
import torch
from click.testing import CliRunner

from sepcli.cli import main
from sepcli.data.datasets import Items
from sepcli.data.toy import Toy, ToySpec
from sepcli.errors import SepcliError
from sepcli.layers import rows
from sepcli.losses import waveforms
from sepcli.models import build
from sepcli.training.loop import State, fit
from sepcli.training.settings import Settings

SOURCES = ("modulated", "sines")
SMALL = {"sources": SOURCES, "hidden": 8, "blocks": 2, "repeats": 1}
MODELS = {
    "conv_tasnet": {"filters": 16, "bottleneck": 8, "skip": 8},
    "spectral_tasnet": {"window": 64, "hop": 32, "width": 8},
    "dmgtcm_unet": {"window": 64, "hop": 32, "width": 4, "levels": 2, "tcm_width": 8},
}
STEPS = 3


def train(name="spectral_tasnet", steps=STEPS, saved=None, **train):
    """A training of a small model: (state, records, the products' number types)."""
    settings = {**SMALL, **MODELS[name]}
    if name == "dmgtcm_unet":
        settings["tcm_hidden"] = settings.pop("hidden")
    torch.manual_seed(0)
    model = build(name, **settings)
    quick = {"batch": 2, "warmup": 0, "log_every": 1, "validate_every": 100, "lr": 1e-3}
    settings = Settings(steps=steps, **quick, **train)
    state = State(model, settings)
    if saved:
        state.load_state_dict(saved)
    data = Items(Toy(ToySpec(duration_s=0.05)), SOURCES, items=4, seed=0)
    products = []

    def seen(function):
        def call(*given):
            products.append(function(*given).dtype)
            return function(*given)

        return call

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.nn.Conv1d, "forward", seen(torch.nn.Conv1d.forward))
        patch.setattr(rows.F, "linear", seen(rows.F.linear))
        records = list(fit(state, data, data, settings))
    return state, records, products


def of(records, event, key):
    return [record[key] for record in records if record["event"] == event]


@pytest.mark.parametrize("autocast", ["bf16", "fp16"])
@pytest.mark.parametrize("name", MODELS)
def test_products_have_16_bits_and_losses_and_weights_32(name, autocast, monkeypatch):
    kinds, si_sdr = [], waveforms.si_sdr_loss

    def checked(estimate, reference, mixture):
        kinds.extend((estimate.dtype, reference.dtype))
        return si_sdr(estimate, reference, mixture)

    monkeypatch.setattr(waveforms, "si_sdr_loss", checked)
    state, records, products = train(name, autocast=autocast)
    assert {torch.bfloat16, torch.float16} & set(products)
    assert torch.float32 in products  # validations
    assert set(kinds) == {torch.float32}
    assert all(weight.dtype == torch.float32 for weight in state.model.parameters())
    _, exact, _ = train(name)
    found, expected = of(records, "step", "loss"), of(exact, "step", "loss")
    assert found != expected
    assert found[0] == pytest.approx(expected[0], abs=1.0)  # dB


def test_a_training_in_fp16_goes_on_with_its_scale():
    whole, _, _ = train(autocast="fp16")
    first, _, _ = train(steps=1, autocast="fp16")
    saved = first.state_dict()
    saved["scaler"]["scale"] = 1024.0
    assert train(saved=saved, autocast="fp16")[0].scaler.get_scale() == 1024.0
    assert whole.scaler.get_scale() >= 1024.0


class Compiler:
    """In place of torch.compile: counts, and fails in a call if it is to."""

    def __init__(self, fails=False):
        self.fails, self.compiled, self.called = fails, [], 0

    def __call__(self, function):
        self.compiled.append(function.__name__)

        def compiled(*given):
            self.called += 1
            if self.fails:
                raise RuntimeError("no compiler found\nand much more")
            return function(*given)

        return compiled


@pytest.mark.parametrize(
    ("name", "part"), [("conv_tasnet", "forward"), ("spectral_tasnet", "core")]
)
@pytest.mark.parametrize("fails", [False, True])
def test_a_compiled_model_learns_the_same_and_without_a_compiler_it_is_not_compiled(
    name, part, fails, monkeypatch
):
    compiler = Compiler(fails)
    monkeypatch.setattr(torch, "compile", compiler)
    state, records, _ = train(name, compile=True)
    assert compiler.compiled == [part]
    assert compiler.called == 1 if fails else compiler.called > STEPS
    assert part not in vars(state.model)
    told = ["train.compile: not compiled (no compiler found); training is slower without"]
    assert of(records, "warning", "message") == (told if fails else [])
    plain, _, _ = train(name)
    for a, b in zip(plain.model.parameters(), state.model.parameters(), strict=True):
        assert torch.equal(a, b)
    for a, b in zip(plain.model.buffers(), state.model.buffers(), strict=True):
        assert torch.equal(a, b)


def test_the_command_says_so_when_it_cannot_compile(tmp_path, monkeypatch):
    monkeypatch.setattr(torch, "compile", Compiler(fails=True))
    toy = "{kind: toy, duration_s: 0.05, items: 4}"
    (tmp_path / "a.yaml").write_text(
        "model: {name: conv_tasnet, sources: [modulated, sines], filters: 8, hidden: 8,\n"
        "  bottleneck: 8, skip: 8, blocks: 1, repeats: 1}\n"
        f"data: {{train: {toy}, valid: {toy}}}\n"
        "train: {steps: 1, batch: 2, compile: true}\n"
    )
    result = CliRunner().invoke(main, ["train", f"{tmp_path}/a.yaml", "-o", f"{tmp_path}/run"])
    assert result.exit_code == 0, result.output
    assert (
        "train.compile: not compiled (no compiler found); training is slower without"
        in result.stderr
    )


def test_an_unknown_kind_of_number_is_an_error():
    with pytest.raises(SepcliError, match=r"autocast must be none or bf16 or fp16, not 'int8'"):
        Settings(autocast="int8")
