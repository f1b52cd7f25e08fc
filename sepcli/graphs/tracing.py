"""From a module to an ONNX graph: what torch's exporter needs help with."""

import contextlib
import copy
import logging
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import nn

from sepcli.errors import SepcliError
from sepcli.graphs.realparts import RealParts

LOGGERS = ("torch.onnx", "torch.export", "torch.__trace", "onnxscript", "onnx_ir")
ONNX_GATES = (0, 3, 1, 2)  # input, output, forget, cell: of torch's input, forget, cell, output


def check_packages() -> None:
    """Raise SepcliError unless the packages are there that write ONNX."""
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401  torch's exporter asks for it much later
    except ImportError as error:
        raise SepcliError(
            f"exporting needs {error.name}, which is not installed: pip install 'sepcli[export]'"
        ) from None


def to_onnx(
    module: nn.Module,
    inputs: Sequence[torch.Tensor],
    dynamic: Sequence[Sequence[int]],
    names: tuple[Sequence[str], Sequence[str]],
    *,
    complexes: bool = False,
    trials: Sequence[Sequence[torch.Tensor]] = (),
) -> Any:
    """The module, a function of tensors, as an onnx.ModelProto.

    dynamic: of each input the dimensions that may have any size. names: of inputs and outputs.
    complexes: whether there may be complex numbers inside, which a graph does not have.
    trials: inputs of other sizes. Raises FixedSizeError when the module does not allow these.
    """
    from onnxscript import optimizer

    auto = torch.export.Dim.AUTO
    shapes = tuple(dict.fromkeys(each, auto) for each in dynamic)
    module = fusible(copy.deepcopy(module)).eval()
    with quiet(), torch.no_grad():
        if complexes:
            program = torch.export.export(_Flat(module), (tuple(inputs),), dynamic_shapes=(shapes,))
            _try(program, trials)
            module = RealParts(program)
        program = torch.onnx.export(
            _Flat(module),
            (tuple(inputs),),
            input_names=list(names[0]),
            output_names=list(names[1]),
            dynamic_shapes=(shapes,),
            dynamo=True,
            external_data=False,
            verbose=False,
            optimize=False,  # it takes an addition of 1e-10 for one of nothing, and drops it
        )
        assert program is not None  # with dynamo
        optimizer.fold_constants(program.model)
        optimizer.remove_unused_nodes(program.model)
    return program.model_proto


class FixedSizeError(SepcliError):
    """A module that was traced does not allow inputs of other sizes."""


def _try(program, trials):
    """Raise FixedSizeError unless what tracing assumed holds for inputs of other sizes."""
    for inputs in trials:
        try:
            program.module()(tuple(inputs))
        except Exception as error:  # of a guard, of a constraint, or of an operation
            reason = " ".join(str(error).split())[:200]
            raise FixedSizeError(
                f"the graph is for signals of one length alone ({reason})"
            ) from None


class _Flat(nn.Module):
    """A module that takes its inputs as one tuple, so that there may be any number of them."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, inputs):
        return self.module(*inputs)


def fusible(module: nn.Module) -> Any:
    """Replace layers by those that ONNX Runtime runs best.

    PReLUs of one slope become LeakyReLUs, which it joins to convolutions; LSTMs its own.
    """
    for name, child in module.named_children():
        if isinstance(child, nn.PReLU) and child.num_parameters == 1:
            setattr(module, name, nn.LeakyReLU(float(child.weight.detach())))
        elif isinstance(child, nn.LSTM):
            setattr(module, name, OnnxLstm(child))
        else:
            fusible(child)
    return module


class OnnxLstm(nn.Module):
    """An LSTM as ONNX's operator, for any number of steps; it can be exported, but not run."""

    def __init__(self, lstm: nn.LSTM) -> None:
        super().__init__()
        if lstm.proj_size:
            raise SepcliError("an LSTM with projections has no form in ONNX")
        self.hidden_size, self.first = lstm.hidden_size, lstm.batch_first
        self.directions = 2 if lstm.bidirectional else 1
        self.layers = lstm.num_layers
        for layer in range(lstm.num_layers):
            ends = ("", "_reverse")[: self.directions]
            for name, kinds in (("W", ["weight_ih"]), ("R", ["weight_hh"]), ("B", None)):
                parts = []
                for end in ends:
                    own = kinds or (["bias_ih", "bias_hh"] if lstm.bias else [])
                    found = [_gates(getattr(lstm, f"{kind}_l{layer}{end}")) for kind in own]
                    parts.append(torch.cat(found) if found else torch.zeros(8 * self.hidden_size))
                self.register_buffer(f"{name}{layer}", torch.stack(parts))

    def forward(self, x: torch.Tensor, past: Any = None) -> Any:
        """As that of nn.LSTM, for a batch."""
        x = x.transpose(0, 1) if self.first else x  # (N, B, I)
        N, B, _ = x.shape
        D, H = self.directions, self.hidden_size
        zeros = x.new_zeros(self.layers * D, B, H)
        before, following = past or (zeros, zeros), []
        for layer in range(self.layers):
            own = slice(layer * D, (layer + 1) * D)
            weights = (getattr(self, f"{name}{layer}") for name in "WRB")
            x, *states = torch.onnx.ops.symbolic_multi_out(
                "LSTM",
                (x, *weights, None, *(state[own] for state in before)),
                {"hidden_size": H, "direction": ("forward", "bidirectional")[D - 1]},
                dtypes=[torch.float32] * 3,
                shapes=[(N, D, B, H), (D, B, H), (D, B, H)],
                version=14,
            )
            following.append(states)
            x = x.transpose(1, 2).flatten(2)  # (N, B, D*H)
        last = tuple(torch.cat(list(each)) for each in zip(*following, strict=True))
        return x.transpose(0, 1) if self.first else x, last


def _gates(weight: torch.Tensor) -> torch.Tensor:
    """A weight or bias of the four gates in ONNX's order."""
    gates = weight.detach().chunk(4)
    return torch.cat([gates[i] for i in ONNX_GATES])


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep the exporter's warnings about itself and packages that it does not need from view."""
    loggers = [logging.getLogger(name) for name in LOGGERS]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
