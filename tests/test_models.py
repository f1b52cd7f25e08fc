"""The contract of every model: shapes, gradients, saving, and streaming equal to offline."""

import pytest
import torch

from sepcli.errors import SepcliError
from sepcli.models import MODELS, build, model_class
from tests.models import EVERY, TINY, complete, made, randomise


def stream(model, x, chunks):
    """Run `model` on (B, C, T) in chunks of the given numbers of hops; crop like `forward`."""
    T = x.shape[-1]
    total = -(-(T + model.delay) // model.hop)  # hops
    x = torch.nn.functional.pad(x, (0, total * model.hop - T))
    state, out, at = model.initial_state(len(x)), [], 0
    while at < total:
        n = min(chunks[len(out) % len(chunks)], total - at)
        y, state = model.step(x[..., at * model.hop : (at + n) * model.hop], state)
        out.append(y)
        at += n
    return torch.cat(out, -1)[..., model.delay : model.delay + T]


def test_every_model_has_a_tiny_form():
    assert {name for name, _ in EVERY} == set(MODELS)


@pytest.mark.parametrize(("name", "settings"), EVERY)
@pytest.mark.parametrize("length", [1, 100, 1601])
def test_output_has_a_source_axis_and_the_length_of_the_input(name, settings, length):
    model = made(name, settings).eval()
    y = model(torch.randn(2, model.channels, length))
    assert y.shape == (2, len(model.sources), model.channels, length)
    assert torch.isfinite(y).all()


@pytest.mark.parametrize(("name", "settings"), EVERY)
def test_every_parameter_gets_a_gradient(name, settings):
    model = made(name, settings)
    model(torch.randn(2, model.channels, 2000)).square().sum().backward()
    unused = {n for n, p in model.named_parameters() if p.grad is None}
    assert unused <= {n for n in unused if "residual" in n}  # the last block's, documented


@pytest.mark.parametrize(("name", "settings"), TINY)
@pytest.mark.parametrize("chunks", [(1,), (2, 1, 5, 3), (40, 1)])
@pytest.mark.parametrize("length", [1, 640, 1999])
def test_streaming_equals_offline(name, settings, chunks, length):
    torch.manual_seed(0)
    model = complete(randomise(build(name, **settings)))
    x = torch.randn(2, model.channels, length)
    with torch.no_grad():
        torch.testing.assert_close(stream(model, x, chunks), model(x), rtol=0, atol=1e-5)


@pytest.mark.parametrize(("name", "settings"), TINY)
def test_streaming_equals_offline_to_the_last_bits_of_float64(name, settings):
    torch.manual_seed(0)
    model = complete(randomise(build(name, **settings)).double())
    x = torch.randn(1, model.channels, 2500, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(stream(model, x, (1, 4, 2)), model(x), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("name", "settings"), TINY)
def test_the_exported_form_computes_what_the_core_does(name, settings):
    torch.manual_seed(0)
    model = complete(randomise(build(name, **settings)).double())
    form, hops = model.exported(), 40
    size = (form.hops or 8) * (1 if model.front_end == "stft" else model.hop)
    length = hops * (1 if model.front_end == "stft" else model.hop)
    rows = (2, model.stft.kernel // 2 + 1) if model.front_end == "stft" else (model.channels,)
    x = torch.randn(3, *rows, length, dtype=torch.float64)
    state, parts = form.core_state(3), []
    with torch.no_grad():
        for part in x.split(size, -1):
            y, state = form.core(part, state)
            parts.append(y)
        expected, _ = model.core(x, model.core_state(3))
        torch.testing.assert_close(torch.cat(parts, -1), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("name", "settings"), TINY)
def test_no_output_depends_on_input_beyond_the_latency(name, settings):
    torch.manual_seed(0)
    model = complete(randomise(build(name, **settings)).double())
    x = torch.randn(1, model.channels, 3000, dtype=torch.float64)
    later = x.clone()
    later[..., 2000:] += 1
    with torch.no_grad():
        difference = (model(later) - model(x)).abs().amax((0, 1, 2))
    assert difference[: 2000 - model.latency + 1].max() == 0
    assert difference[2000:].max() > 0


@pytest.mark.parametrize(("name", "settings"), EVERY)
def test_a_wrong_number_of_channels_is_refused(name, settings):
    model = made(name, settings)
    with pytest.raises(ValueError, match="expected"):
        model(torch.randn(2, model.channels + 1, 2000))


def test_an_unknown_model_names_the_known_ones():
    with pytest.raises(SepcliError, match=r"unknown model 'tasnet'; choose from .*conv_tasnet"):
        model_class("tasnet")
