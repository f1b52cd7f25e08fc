"""From a module to an ONNX graph, or to a program: what torch's exporters need help with."""

import contextlib
import copy
import logging
import operator
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import nn

from sepcli.errors import SepcliError
from sepcli.graphs.realparts import RealParts
from sepcli.graphs.recurrent import OnnxRecurrent, whole_recurrences

LOGGERS = ("torch.onnx", "torch.export", "torch.__trace", "onnxscript", "onnx_ir")
TOLD = ("stack_trace", "nn_module_stack", "source_fn_stack", "torch_fn", "from_node", "custom")
SIZES = frozenset(  # what is computed of sizes or left out, beside what has a form in ONNX
    {
        torch.ops.aten.sym_size.int, torch.ops.aten._assert_scalar.default, operator.getitem,
        operator.add, operator.sub, operator.mul, operator.floordiv,
    }
)  # fmt: skip


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
    with quiet(), whole_operations(), torch.no_grad():
        if complexes:
            program = torch.export.export(_Flat(module), (tuple(inputs),), dynamic_shapes=(shapes,))
            _try(program, [(tuple(inputs),) for inputs in trials])
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


def to_program(
    module: nn.Module,
    inputs: Sequence[torch.Tensor],
    dynamic: Sequence[Sequence[int]],
    trials: Sequence[Sequence[torch.Tensor]] = (),
) -> torch.export.ExportedProgram:
    """The module, a function of tensors, as a program; see `to_onnx`.

    It knows nothing of the lines of code that it was made from, nor of the inputs.
    """
    first, *others = (dict.fromkeys(each, torch.export.Dim.AUTO) for each in dynamic)
    shapes = (first, tuple(others)) if others else (first,)
    with quiet(), whole_recurrences(), no_autocast(), torch.no_grad():
        program = torch.export.export(module.eval(), tuple(inputs), dynamic_shapes=shapes)
        _try(program, trials)
    for node in program.graph.nodes:
        for key in TOLD:
            node.meta.pop(key, None)
    program.example_inputs = None
    return program


def _try(program, trials):
    """Raise FixedSizeError unless what tracing assumed holds for inputs of other sizes."""
    call: Any = program.module() if trials else None
    for inputs in trials:
        try:
            call(*inputs)
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

    PReLUs of one slope become LeakyReLUs, which it joins to convolutions; LSTMs and GRUs its own.
    """
    for name, child in module.named_children():
        if isinstance(child, nn.PReLU) and child.num_parameters == 1:
            setattr(module, name, nn.LeakyReLU(float(child.weight.detach())))
        elif isinstance(child, nn.LSTM | nn.GRU):
            setattr(module, name, OnnxRecurrent(child))
        elif isinstance(child, nn.BatchNorm1d | nn.BatchNorm2d) and child.affine:
            setattr(module, name, FrozenNorm(child))
        else:
            fusible(child)
    return module


class FrozenNorm(nn.Module):
    """A batch norm by its running statistics, as the operation that ONNX has."""

    def __init__(self, norm: Any) -> None:
        super().__init__()
        self.eps = norm.eps
        for name in ("weight", "bias", "running_mean", "running_var"):
            self.register_buffer(name, getattr(norm, name).detach())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        known = (self.weight, self.bias, self.running_mean, self.running_var)
        return torch.ops.aten._native_batch_norm_legit_no_training(x, *known, 0.0, self.eps)[0]


@contextlib.contextmanager
def whole_operations() -> Iterator[None]:
    """Let torch.onnx not trace a program a second time where ONNX has all of its operations.

    It does so to take apart those that ONNX lacks, which is half of the time that it takes.
    """
    try:
        from torch.onnx._internal.exporter import _decomp, _fx_passes

        kept, known_to = _fx_passes.decompose_with_registry, _decomp.get_onnx_implemented_overloads
    except (ImportError, AttributeError):  # another version of torch
        yield
        return

    def decomposed(program: Any, registry: Any) -> Any:
        known = {*known_to(registry), *SIZES}
        calls = (node.target for node in program.graph.nodes if node.op == "call_function")
        return program if known.issuperset(calls) else kept(program, registry)

    _fx_passes.decompose_with_registry = decomposed
    try:
        yield
    finally:
        _fx_passes.decompose_with_registry = kept


@contextlib.contextmanager
def no_autocast() -> Iterator[None]:
    """Let contexts without automatic casts leave no trace: nothing is cast while tracing."""
    kept = torch.autocast

    def autocast(*args: Any, enabled: bool = True, **choices: Any) -> Any:
        return kept(*args, enabled=True, **choices) if enabled else contextlib.nullcontext()

    torch.autocast = autocast  # type: ignore[assignment, misc]
    try:
        yield
    finally:
        torch.autocast = kept  # type: ignore[misc]


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
