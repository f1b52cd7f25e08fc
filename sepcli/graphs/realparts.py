"""Complex numbers as pairs of real ones: what makes graphs of formats that know no complex numbers.

`RealParts` runs a program that `torch.export` has made, with every complex tensor as its real and
its imaginary part, and every transform as a matrix product; so a graph of it has real numbers only.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import fx, nn
from torch.nn import functional as F
from torch.utils import _pytree as pytree

from sepcli.errors import SepcliError


class Pair:
    """A complex tensor as two real ones of its shape."""

    def __init__(self, real: torch.Tensor, imag: torch.Tensor) -> None:
        self.real, self.imag = real, imag


EACH = frozenset(  # what does the same to both parts, and does not mix them
    """
    alias cat chunk clone constant_pad_nd contiguous detach expand flatten flip gather getitem index
    index_select lift_fresh_copy mean movedim narrow neg pad permute repeat reshape roll select
    slice split split_with_sizes squeeze stack sum swapaxes t tile transpose unbind unflatten unfold
    unsqueeze view view_as where zeros_like
    """.split()  # noqa: SIM905
)


class RealParts(nn.Module):
    """A program of `torch.export` whose inputs and outputs are real, in real numbers throughout.

    Raises SepcliError for an operation on complex numbers that is not known here.
    """

    def __init__(self, program: torch.export.ExportedProgram) -> None:
        super().__init__()
        self.program = program.module(check_guards=False)

    def forward(self, *inputs: torch.Tensor) -> Any:
        return _Interpreter(self.program).run(*inputs)


class _Interpreter(fx.Interpreter):
    """Runs the nodes of a program; values are tensors or `Pair`s."""

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        name = _name(target)
        if name in MAKERS:
            return MAKERS[name](*args, **kwargs)
        if name == "unfold":
            target = _frames
        if not any(isinstance(value, Pair) for value in pytree.tree_leaves((args, kwargs))):
            return target(*args, **kwargs)
        if name in RULES:
            return RULES[name](*args, **kwargs)
        if name in EACH:
            return _each(target, args, kwargs)
        if name in ("sym_size", "size"):
            return target(args[0].real, *args[1:])
        raise SepcliError(f"{name} of complex numbers has no form in real ones; it is not exported")


def _name(target: Any) -> str:
    """`view_as_real` of torch.ops.aten.view_as_real.default."""
    if isinstance(target, torch._ops.OpOverload):
        return target._schema.name.partition("::")[2]
    return getattr(target, "__name__", str(target))


def _each(target, args, kwargs):
    """Call on the real parts and on the imaginary ones; real tensors have an imaginary part of 0.

    What chooses, as the condition of `where` or an index, is the same for both.
    """
    several = any(isinstance(value, Pair) for arg in args if isinstance(arg, list) for value in arg)

    def part(value, imag):
        if isinstance(value, Pair):
            return value.imag if imag else value.real
        if imag and several and isinstance(value, torch.Tensor):
            return torch.zeros_like(value)
        return value

    real, imag = (
        target(*pytree.tree_map(lambda x, imag=imag: part(x, imag), args), **kwargs)
        for imag in (False, True)
    )
    if isinstance(real, tuple | list):
        return [Pair(*parts) for parts in zip(real, imag, strict=True)]
    return Pair(real, imag)


# Arithmetic


def _pair(value):
    """A pair, of a real tensor or a number as well."""
    if isinstance(value, Pair):
        return value
    if isinstance(value, complex):
        return Pair(value.real, value.imag)  # type: ignore[arg-type]
    return Pair(value, 0.0)  # type: ignore[arg-type]


def _is_real(value):
    return not isinstance(value, Pair | complex)


def _add(a, b, *, alpha=1):
    a, b = _pair(a), _pair(b)
    return Pair(a.real + alpha * b.real, a.imag + alpha * b.imag)


def _sub(a, b, *, alpha=1):
    return _add(a, b, alpha=-alpha)


def _mul(a, b):
    if _is_real(b):
        return Pair(a.real * b, a.imag * b)
    if _is_real(a):
        return Pair(a * b.real, a * b.imag)
    return Pair(a.real * b.real - a.imag * b.imag, a.real * b.imag + a.imag * b.real)


def _div(a, b):
    if _is_real(b):
        return Pair(a.real / b, a.imag / b)
    power = b.real.square() + b.imag.square()
    return _mul(a, Pair(b.real / power, -b.imag / power))


def _abs(x):
    return (x.real.square() + x.imag.square()).sqrt()


def _exp(x):
    return _polar(x.real.exp(), x.imag)


def _polar(magnitude, angle):
    return Pair(magnitude * angle.cos(), magnitude * angle.sin())


def _matmul(a, b):
    if _is_real(b):
        return Pair(a.real @ b, a.imag @ b)
    if _is_real(a):
        return Pair(a @ b.real, a @ b.imag)
    return Pair(a.real @ b.real - a.imag @ b.imag, a.real @ b.imag + a.imag @ b.real)


# Transforms, as products with a matrix of as many rows as there are samples


class _Basis(NamedTuple):
    cos: torch.Tensor
    sin: torch.Tensor


def _basis(size: int, bins: int) -> _Basis:
    """cos and sin of 2 pi t f / size, (size, bins) each."""
    turns = torch.arange(size)[:, None] * torch.arange(bins) % size
    angles = turns.double() * (2 * math.pi / size)
    return _Basis(angles.cos().float(), angles.sin().float())


def _rfft(x, n=None, dim=-1, norm=None):
    _check(dim in (-1, x.ndim - 1) and norm in (None, "backward"), "fft_rfft")
    size = n or x.shape[-1]
    if x.shape[-1] != size:
        x = F.pad(x, (0, size - x.shape[-1]))
    cos, sin = _basis(size, size // 2 + 1)
    return Pair(x @ cos, -(x @ sin))


def _irfft(x, n=None, dim=-1, norm=None):
    _check(dim in (-1, x.real.ndim - 1) and norm in (None, "backward"), "fft_irfft")
    bins = x.real.shape[-1]
    size = n or 2 * (bins - 1)
    _check(bins == size // 2 + 1, "fft_irfft")
    cos, sin = _basis(size, bins)
    weight = torch.full((bins,), 2.0 / size)
    weight[0] /= 2
    if size % 2 == 0:
        weight[-1] /= 2
    return x.real @ (weight * cos).T - x.imag @ (weight * sin).T


def _frames(x, dim, size, step):
    """`unfold` by an index, which every format has: (..., T) to (..., N, size)."""
    _check(dim in (-1, x.ndim - 1), "unfold")
    count = (x.shape[-1] - size) // step + 1
    index = torch.arange(count)[:, None] * step + torch.arange(size)
    return x[..., index]


def _stft(x, n_fft, hop=None, win_length=None, window=None, normalized=False, onesided=None,
          return_complex=None, align_to_window=None):  # fmt: skip
    """Of signals that are padded already, (..., T) to (..., F, N)."""
    _check(not normalized and onesided is not False and win_length in (None, n_fft), "stft")
    frames = _frames(x, -1, n_fft, hop or n_fft // 4)
    y = _rfft(frames if window is None else frames * window)
    return Pair(y.real.transpose(-1, -2), y.imag.transpose(-1, -2))


def _istft(x, n_fft, hop=None, win_length=None, window=None, center=True, normalized=False,
           onesided=None, length=None, return_complex=False):  # fmt: skip
    """Of spectra (..., F, N) to (..., T): windowed frames added up, over what windows add up to."""
    _check(not normalized and onesided is not False and win_length in (None, n_fft), "istft")
    hop = hop or n_fft // 4
    window = torch.ones(n_fft) if window is None else window
    frames = _irfft(Pair(x.real.transpose(-1, -2), x.imag.transpose(-1, -2)), n_fft) * window
    lead, count = frames.shape[:-2], frames.shape[-2]
    add = torch.eye(n_fft)[:, None]
    columns = frames.reshape(-1, count, n_fft).transpose(1, 2)
    y = F.conv_transpose1d(columns, add, stride=hop)[:, 0]
    power = window.square()[None, :, None].expand(1, n_fft, count)
    envelope = F.conv_transpose1d(power, add, stride=hop)[0, 0]
    start = n_fft // 2 if center else 0
    stop = y.shape[-1] - start if length is None else start + length
    y = y[:, start:stop] / envelope[start:stop].clamp(min=1e-11)
    return y.reshape(*lead, -1)


def _check(known: bool, name: str) -> None:
    if not known:
        raise SepcliError(f"{name} of this kind has no form in real numbers; it is not exported")


MAKERS: dict[str, Callable[..., Any]] = {  # what makes complex numbers of real ones
    "complex": Pair,
    "view_as_complex": lambda x: Pair(x[..., 0], x[..., 1]),
    "polar": _polar,
    "fft_rfft": _rfft,
    "stft": _stft,
}
RULES: dict[str, Callable[..., Any]] = {  # what mixes the parts
    "real": lambda x: x.real,
    "imag": lambda x: x.imag,
    "view_as_real": lambda x: torch.stack([x.real, x.imag], -1),
    "abs": _abs,
    "angle": lambda x: torch.atan2(x.imag, x.real),
    "conj": lambda x: Pair(x.real, -x.imag),
    "_conj": lambda x: Pair(x.real, -x.imag),
    "resolve_conj": lambda x: x,
    "_to_copy": lambda x, **_: x,
    "to": lambda x, *_, **__: x,
    "add": _add,
    "sub": _sub,
    "mul": _mul,
    "div": _div,
    "exp": _exp,
    "matmul": _matmul,
    "bmm": _matmul,
    "mm": _matmul,
    "fft_irfft": _irfft,
    "istft": _istft,
}
