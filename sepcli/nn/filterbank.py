"""Streaming filterbanks: learned (Conv-TasNet) and short-time Fourier; samples to frames and back.

Both cut frames of `kernel` samples every `stride` samples and overlap-add frames of the same
size. Analysis keeps the last `kernel - stride` samples as its state, synthesis the same number of
samples not yet complete; so the round trip lags by `kernel - stride` samples.
"""

import torch
from torch import nn
from torch.nn import functional as F

MOST_OVERLAP = 128  # frames that a sample is in; more would be a slip, and take minutes


def check_overlap(kernel: int, stride: int) -> None:
    """Raise ValueError where frames of `kernel` samples would come far too often."""
    if kernel > MOST_OVERLAP * stride:
        raise ValueError(f"a window of {kernel} is over {MOST_OVERLAP} times its hop of {stride}")


def overlap_add(
    frames: torch.Tensor, stride: int, tail: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Add frames (B, N, L) at `stride` to `tail` (B, L - stride): (B, N*stride) and the next tail.

    L must be a multiple of `stride`.
    """
    B, N, L = frames.shape
    parts = frames.reshape(B, N, L // stride, stride)  # (B, N, L/stride, stride)
    length = (N - 1) * stride + L
    out = F.pad(tail, (0, N * stride))  # (B, (N + L/stride - 1) * stride)
    for i in range(L // stride):
        part = parts[:, :, i].reshape(B, N * stride)
        out = out + F.pad(part, (i * stride, length - N * stride - i * stride))
    return out[:, : N * stride], out[:, N * stride :]


class Filterbank(nn.Module):
    """What both filterbanks share: frame geometry and states."""

    def __init__(self, kernel: int, stride: int) -> None:
        super().__init__()
        if kernel % stride:
            raise ValueError(f"kernel {kernel} must be a multiple of stride {stride}")
        self.kernel, self.stride = kernel, stride
        self.overlap = kernel - stride

    def initial_state(self, batch: int, like: torch.Tensor) -> torch.Tensor:
        """Zeros (batch, overlap) of the dtype and device of the tensor `like`."""
        return like.new_zeros(batch, self.overlap)


class LearnedEncoder(Filterbank):
    """Convolution of (B, T) with `filters` learned filters: (B, filters, T/stride)."""

    def __init__(self, filters: int, kernel: int, stride: int, *, activation: bool = True) -> None:
        super().__init__(kernel, stride)
        self.conv = nn.Conv1d(1, filters, kernel, stride=stride, bias=False)
        self.activation = activation

    def step(self, x: torch.Tensor, past: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = torch.cat([past, x], -1)
        frames = self.conv(x[:, None])  # (B, filters, N)
        return frames.relu() if self.activation else frames, x[:, x.shape[-1] - self.overlap :]

    def rows(self, x: torch.Tensor) -> torch.Tensor:
        """The frames (B, N, filters) of a whole signal (B, T)."""
        frames = x.unfold(-1, self.kernel, self.stride) @ self.conv.weight[:, 0].t()
        return frames.relu() if self.activation else frames


class LearnedDecoder(Filterbank):
    """Transposed convolution of (B, filters, N) to (B, N*stride)."""

    def __init__(self, filters: int, kernel: int, stride: int) -> None:
        super().__init__(kernel, stride)
        self.conv = nn.ConvTranspose1d(filters, 1, kernel, stride=stride, bias=False)

    def step(self, frames: torch.Tensor, tail: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        basis = self.conv.weight[:, 0]  # (filters, L)
        return overlap_add(frames.transpose(1, 2) @ basis, self.stride, tail)

    def rows(self, frames: torch.Tensor) -> torch.Tensor:
        """The whole signals (B, (N - 1) * stride + kernel, S) of frames (B, N, S, filters)."""
        parts = (frames @ self.conv.weight[:, 0]).unflatten(-1, (-1, self.stride))
        spare = parts.shape[3] - 1  # strides that a frame goes on for
        y = F.pad(parts[:, :, :, 0], (0, 0, 0, 0, 0, spare))
        for k in range(1, spare + 1):
            y = y + F.pad(parts[:, :, :, k], (0, 0, 0, 0, k, spare - k))
        return y.transpose(2, 3).flatten(1, 2)  # (B, N + spare, S, stride) before


@torch.no_grad()
def perfect_reconstruction_(encoder: LearnedEncoder, decoder: LearnedDecoder) -> None:
    """Set the learned filters so that decoding undoes encoding exactly, through the ReLU too.

    With a matrix Q whose columns, as many as the kernel has samples, are orthonormal, the encoder
    is [Q; -Q] and the decoder the same, scaled: Q'(relu(Qx) - relu(-Qx)) = Q'Qx = x, and
    overlapping frames are averaged. Needs filters >= 2 * kernel, so that Q has at least as many
    rows; of an odd number the last filter stays as it is, and the decoder does not use it yet.
    """
    filters, _, kernel = encoder.conv.weight.shape
    if filters < 2 * kernel:
        raise ValueError(f"needs filters >= 2 * kernel = {2 * kernel}, not {filters}")
    q = torch.linalg.qr(torch.randn(filters // 2, kernel, dtype=torch.float64))[0]
    pair = torch.cat([q, -q])[:, None]
    encoder.conv.weight[: len(pair)] = pair.to(encoder.conv.weight)
    decoder.conv.weight.zero_()
    decoder.conv.weight[: len(pair)] = (pair * encoder.stride / kernel).to(decoder.conv.weight)


class Stft(Filterbank):
    """Short-time Fourier transform (B, T) to complex (B, F, N) and back, F = kernel/2 + 1.

    window: `sqrt_hann` (the square root of a periodic Hann window) or `hann`, on both sides.
    Synthesis divides by what the window's overlapping squares add up to: the constant
    kernel / (2 stride) for `sqrt_hann`, and a value that varies along the hop for `hann`, such as
    0.5 to 1 when kernel = 2 stride.
    """

    window: torch.Tensor
    synthesis_window: torch.Tensor

    def __init__(self, kernel: int, stride: int, *, window: str = "sqrt_hann") -> None:
        super().__init__(kernel, stride)
        if kernel < 2 * stride:
            raise ValueError("a Hann window needs kernel >= 2 * stride")
        check_overlap(kernel, stride)
        shapes = {"sqrt_hann": torch.sqrt, "hann": torch.clone}
        if window not in shapes:
            raise ValueError(f"unknown window {window!r}; choose from {', '.join(shapes)}")
        analysis = shapes[window](torch.hann_window(kernel))
        envelope = analysis.square().reshape(-1, stride).sum(0)  # (stride,)
        self.register_buffer("window", analysis, persistent=False)
        self.register_buffer(
            "synthesis_window", analysis / envelope.repeat(kernel // stride), persistent=False
        )

    def analyse(self, x: torch.Tensor, past: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = torch.cat([past, x], -1)
        frames = x.unfold(-1, self.kernel, self.stride) * self.window  # (B, N, L)
        spectrum = torch.fft.rfft(frames).transpose(1, 2)  # (B, F, N)
        return spectrum, x[:, x.shape[-1] - self.overlap :]

    def synthesise(
        self, spectrum: torch.Tensor, tail: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        frames = torch.fft.irfft(spectrum.transpose(1, 2), n=self.kernel)  # (B, N, L)
        return overlap_add(frames * self.synthesis_window, self.stride, tail)
