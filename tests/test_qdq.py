"""QDQ graphs: right with every kernel for integers that ONNX Runtime has, and timed."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper

from sepcli.graphs import qdq
from sepcli.graphs.onnx import OnnxRunner
from sepcli.graphs.tracing import quiet
from sepcli.models import build, modelfile
from sepcli.nn.runner import TorchRunner
from sepcli.quant import cpu, integers
from sepcli.quant.convolution import PAIRED, Conv, packed
from sepcli.quant.grids import set_phase
from sepcli.quant.layers import along
from sepcli.runs import quantize
from tests.models import TINY, randomise
from tests.quantised import grid, twin_of

SETTINGS = {"filters": 8, "bottleneck": 4, "hidden": 4, "skip": 4, "blocks": 1, "repeats": 1}
CAUSAL = [(n, s) for n, s in TINY if n in ("conv_tasnet", "spectral_tasnet", "dmgtcm_unet")]
INT16 = np.iinfo(np.int16)


def largest_pairs(weights, axis):
    """The lowest and highest sums of two products of weights with data of 8 bits, of any two."""
    rows = np.moveaxis(weights.astype(np.int64), axis, 0).reshape(weights.shape[axis], -1)
    rows = np.sort(np.pad(rows, ((0, 0), (2, 2))), 1)
    return 255 * rows[:, :2].sum(1).min(), 255 * rows[:, -2:].sum(1).max()


def in_sixteen_bits(data, weights):
    """Sums of products as x86 without VNNI computes them: uint8 (N, K), int8 (K, O) to (N, O).

    PMADDUBSW multiplies and adds two neighbours, and saturates at 16 bits.
    """
    products = data.astype(np.int64)[:, :, None] * weights.astype(np.int64)  # (N, K, O)
    pairs = products.reshape(len(data), -1, 2, weights.shape[1]).sum(2)
    return pairs.clip(INT16.min, INT16.max).sum(1)


@pytest.mark.parametrize(("name", "settings"), CAUSAL)
def test_no_sum_of_two_products_leaves_sixteen_bits(name, settings):
    """Whatever order a kernel adds in, and also after fine-tuning has moved the weights."""
    _, twin = twin_of(name, settings)
    set_phase(twin.train(), "adapt")
    with torch.no_grad():
        for weight in (m.weight for m in twin.modules() if isinstance(m, Conv)):
            weight += 0.3 * torch.randn_like(weight)
    twin(0.1 * torch.randn(1, 1, 1000))
    seen = 0
    for layer in qdq.as_qdq(twin).graph.modules():
        if isinstance(getattr(layer, "layer", None), Conv) and layer.layer.grids[0].bits == 8:
            low, high = largest_pairs(layer.codes.numpy(), layer.layer.axis)
            assert INT16.min <= low
            assert high <= INT16.max
            seen += 1
    assert seen > 3


@pytest.mark.parametrize("paired", [True, False])
def test_a_kernel_that_saturates_gives_the_sums_of_paired_weights_only(paired):
    rng = np.random.default_rng(0)
    into = grid(-2.0, 2.0)
    layer = Conv(torch.from_numpy(rng.laplace(size=(64, 8))).float(), into)
    weights = layer.weight_codes.detach().numpy().astype(np.int64)
    if not paired:
        weights = np.rint(weights * 127 / PAIRED).astype(np.int64)
    low, high = map(int, into.bounds)
    codes = rng.integers(low, high + 1, (500, 64))
    codes[:100], codes[100:200] = low, high
    exact = integers.convolve(layer, codes, weights)
    zero = -low * weights.sum(0)
    assert np.array_equal(in_sixteen_bits(codes - low, weights) - zero, exact) == paired


def test_the_graph_of_a_layer_gives_the_codes_of_the_integers():
    """ONNX Runtime's kernel for integers rescales in float32: seldom off by one, never by more."""
    torch.manual_seed(0)
    into, out = grid(-2.0, 2.0), grid(-3.0, 2.5)
    layer = Conv(torch.nn.Conv1d(32, 48, 3), into, out)
    x = into.values(torch.randint(-128, 127, (2, 32, 100)).float())

    with quiet():
        program = torch.onnx.export(
            qdq.Qdq(layer, again=True).eval(), (x,), dynamo=True, verbose=False
        )
    session = onnxruntime.InferenceSession(program.model_proto.SerializeToString())
    (theirs,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    steps = np.abs(theirs - layer(x).detach().numpy()) / float(out.scale)
    assert steps.max() < 1.01
    assert (steps > 0.5).mean() < 1e-3


def integer_weights(graph):
    """Yield (int8 weights, axis of outputs) of what meets data of 8 bits in a graph."""
    makers = {output: node for node in graph.node for output in node.output}
    stored = {one.name: numpy_helper.to_array(one) for one in graph.initializer}
    for node in graph.node:
        if node.op_type in ("Conv", "ConvTranspose", "MatMul", "Gemm"):
            data, weight = (makers.get(name) for name in node.input[:2])
            if weight is not None and weight.op_type == "DequantizeLinear":
                (axis,) = (a.i for a in weight.attribute if a.name == "axis")
                if data is not None and data.op_type == "DequantizeLinear":
                    yield stored[weight.input[0]], axis


def test_the_graph_beside_the_model_runs_close_to_it_and_is_timed(tmp_path, monkeypatch):
    monkeypatch.setattr(qdq, "SECONDS", 0.1)
    monkeypatch.setattr(qdq, "TURNS", 2)
    torch.manual_seed(0)
    path = tmp_path / "m.safetensors"
    network = randomise(build("conv_tasnet", **SETTINGS))
    twin = cpu.prepare(network)
    quantize.calibrate(twin, [0.1 * torch.randn(1, 1, 8000).numpy()], 1.0)
    card = {"quantized": {"target": "cpu"}}
    modelfile.save(path, "conv_tasnet", SETTINGS, packed(twin), card)
    about = qdq.write(twin, modelfile.read_card(path), path.with_suffix(".onnx"))
    assert about["file"] == str(tmp_path / "m.onnx")
    assert about["bytes"] == (tmp_path / "m.onnx").stat().st_size
    assert 0 <= about["max_difference"] < OnnxRunner(tmp_path / "m.onnx").tolerance == 0.01
    for size in ("whole", "chunks"):
        times = about[size]
        assert times["speedup"] == pytest.approx(times["float32_ms"] / times["int8_ms"])
    weights = list(integer_weights(onnx.load(tmp_path / "m.onnx").graph))
    assert len(weights) > 3
    for codes, axis in weights:
        assert codes.dtype == np.int8
        low, high = largest_pairs(codes, axis)
        assert INT16.min <= low <= high <= INT16.max
    assert not list(tmp_path.glob(".*"))

    plain = tmp_path / "plain.onnx"
    plain.write_bytes(qdq.without_rounding((tmp_path / "m.onnx").read_bytes()))
    assert not {"Round", "QuantizeLinear", "DequantizeLinear"} & kinds(plain)
    x = (0.1 * np.random.default_rng(0).standard_normal((1, 1, 1600))).astype(np.float32)
    runners = OnnxRunner(plain), TorchRunner(on_their_grids(twin))
    y, exact = (runner.step(x, runner.initial_state(1))[0] for runner in runners)
    np.testing.assert_allclose(y, exact, rtol=0, atol=1e-6)


def kinds(path):
    return {node.op_type for node in onnx.load(path).graph.node}


def on_their_grids(twin):
    """The twin in floating point, with the values of its rounded weights and biases."""
    for layer in twin.modules():
        if isinstance(layer, Conv):
            codes, bias, _ = layer.constants()[0]
            unit = layer.weight_scale.repeat(layer.outputs // len(layer.weight_scale))
            layer.weight.data = codes * along(layer.weight_scale, codes, layer.axis)
            layer.bias.data = (bias * unit * layer.grids[0].scale).float()
    set_phase(twin, "observe")
    return twin


def test_without_onnx_the_report_says_what_is_missing(monkeypatch, tmp_path):
    monkeypatch.setattr(qdq, "find_spec", lambda name: None)
    _, twin = twin_of("conv_tasnet", SETTINGS)
    about = qdq.write(twin, None, tmp_path / "m.onnx")
    assert about == {"skipped": "needs onnx: pip install 'sepcli[export]'"}
