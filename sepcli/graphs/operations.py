"""The operations that programs may have: they compute tensors and numbers, and do nothing else."""

import math
import operator
import re
from collections.abc import Callable
from typing import Any

import torch

NUMBERS: dict[str, Callable[..., Any]] = {  # of sizes
    **{
        f"_operator.{name}": getattr(operator, name)
        for name in "add sub mul floordiv truediv mod neg eq ne lt le gt ge".split()  # noqa: SIM905
    },
    **{f"math.{name}": getattr(math, name) for name in ("ceil", "floor", "trunc")},
    "torch.sym_max": max,
    "torch.sym_min": min,
    "torch.sym_not": operator.not_,
    "torch.sym_float": float,
    "torch.sym_int": int,
    "torch.sym_sum": sum,
}
TENSORS = frozenset(  # of torch.ops.aten; some of its others read files
    """
    _assert_scalar _assert_tensor_metadata _conj _softmax _log_softmax _to_copy _unsafe_view
    _native_batch_norm_legit_no_training abs acos add addbmm addcdiv addcmul addmm addmv
    adaptive_avg_pool1d adaptive_avg_pool2d alias all amax amin angle any arange argmax argmin
    argsort as_strided asin atan atan2 avg_pool1d avg_pool2d baddbmm batch_norm bitwise_and
    bitwise_not bitwise_or bmm broadcast_to cat ceil celu chunk clamp clamp_max clamp_min clone
    col2im complex concat conj constant_pad_nd contiguous conv1d conv2d conv3d conv_transpose1d
    conv_transpose2d convolution copy cos cosh cumsum detach diagonal diff div dropout einsum
    elu embedding empty empty_like eq exp exp2 expand expand_as expm1 fft_fft fft_ifft fft_irfft
    fft_rfft fill flatten flip floor floor_divide fmod full full_like gather ge gelu getitem glu
    group_norm gru gt hann_window hardsigmoid hardswish hardtanh hypot im2col imag index
    index_add index_copy index_put index_select instance_norm isfinite isinf isnan istft
    layer_norm le leaky_relu lerp lift_fresh_copy linalg_vector_norm linear linspace log log10
    log1p log2 log_sigmoid log_softmax logical_and logical_not logical_or logsumexp lstm lt
    masked_fill masked_select matmul max max_pool1d max_pool2d maximum mean meshgrid min minimum
    mish mm movedim mul narrow native_group_norm native_layer_norm ne neg new_empty new_full
    new_ones new_zeros norm numel ones ones_like outer pad permute pixel_shuffle polar pow prelu
    prod real reciprocal reflect reflection_pad1d reflection_pad2d relu relu6 remainder repeat
    repeat_interleave reshape resolve_conj rms_norm rnn_tanh roll round rsqrt rsub scalar_tensor
    scaled_dot_product_attention scatter scatter_add select selu sgn sigmoid sign silu sin sinh
    slice slice_scatter softmax softplus sort split split_with_sizes sqrt square squeeze stack
    std std_mean stft sub sum swapaxes sym_numel sym_size sym_storage_offset sym_stride t
    take_along_dim tan tanh tensor_split tile to topk transpose tril triu trunc type_as unbind
    unflatten unfold unsqueeze upsample_bilinear2d upsample_linear1d upsample_nearest1d
    upsample_nearest2d var var_mean view view_as view_as_complex view_as_real vstack where zeros
    zeros_like
    """.split()  # noqa: SIM905
)


def operation(target: str) -> Callable[..., Any]:
    """What computes the operation of that full name; ValueError where it is none of these."""
    if target in NUMBERS:
        return NUMBERS[target]
    match = re.fullmatch(r"torch\.ops\.aten\.(\w+)\.(\w+)", target)
    if not match or match[1].removesuffix("_") not in TENSORS:
        raise ValueError(f"{target} is none of the operations that are run")
    overloads = getattr(torch.ops.aten, match[1], None)
    if overloads is None or match[2] not in overloads.overloads():
        raise ValueError(f"{target} does not exist in this torch")
    return getattr(overloads, match[2])
