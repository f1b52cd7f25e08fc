"""Open-Unmix: recurrent networks over magnitude spectrograms, one for each source of a song.

Stöter et al., "Open-Unmix - A Reference Implementation for Music Source Separation", JOSS 2019.
The parameters are named as in the authors' package, whose checkpoints fit (see
`sepcli.models.weights.openunmix`).
B batch, S sources, C channels, T samples, N frames, F frequencies.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from sepcli.nn.spectral import CentredStft, OfflineSpectralModel, with_phase

DROPOUT = 0.4  # between LSTM layers
LEAST = 1e-4  # deviation of a bin, as a part of the largest


def bins_up_to(bandwidth_hz: float, sample_rate: int, window: int) -> int:
    """How many of the STFT's frequencies are not above `bandwidth_hz`."""
    return min(window // 2, int(bandwidth_hz * window / sample_rate)) + 1


class Network(nn.Module):
    """The network of one source: magnitudes (B, C, F, N) of the mixture to its mask or magnitudes.

    bins: frequencies of input and output.  kept: how many of them the network reads.
    The other settings are those of `OpenUnmix`.
    """

    def __init__(
        self, bins: int, kept: int, channels: int, hidden: int, layers: int, bidirectional: bool
    ) -> None:
        super().__init__()
        self.bins, self.kept = bins, kept
        self.fc1 = nn.Linear(kept * channels, hidden, bias=False)
        self.bn1 = nn.BatchNorm1d(hidden)
        if layers:
            self.lstm = nn.LSTM(
                hidden,
                hidden // 2 if bidirectional else hidden,
                num_layers=layers,
                bidirectional=bidirectional,
                dropout=DROPOUT if layers > 1 else 0.0,
            )
        self.fc2 = nn.Linear(2 * hidden if layers else hidden, hidden, bias=False)
        self.bn2 = nn.BatchNorm1d(hidden)
        self.fc3 = nn.Linear(hidden, bins * channels, bias=False)
        self.bn3 = nn.BatchNorm1d(bins * channels)
        self.input_mean = nn.Parameter(torch.zeros(kept))  # minus the mean
        self.input_scale = nn.Parameter(torch.ones(kept))  # 1 / the standard deviation
        self.output_scale = nn.Parameter(torch.ones(bins))
        self.output_mean = nn.Parameter(torch.ones(bins))

    def forward(self, mixture: torch.Tensor) -> torch.Tensor:
        x = mixture.permute(3, 0, 1, 2)  # (N, B, C, F)
        N, B, C, _ = x.shape
        x = (x[..., : self.kept] + self.input_mean) * self.input_scale
        x = self.bn1(self.fc1(x.reshape(N * B, -1))).tanh()  # (N*B, hidden)
        if hasattr(self, "lstm"):
            x = torch.cat([x, self.lstm(x.reshape(N, B, -1))[0].reshape(N * B, -1)], 1)
        x = self.bn2(self.fc2(x)).relu()
        x = self.bn3(self.fc3(x)).reshape(N, B, C, self.bins)
        return (x * self.output_scale + self.output_mean).relu().permute(1, 2, 3, 0)  # (B, C, F, N)


class OpenUnmix(OfflineSpectralModel):
    """Open-Unmix separator; (B, C, T) to (B, S, C, T), not causal.

    The network of one source has 8,893,348 parameters with the defaults, which are those of the
    published `umx` and `umxhq`, and 28,257,188 with `hidden` 1024, as in `umxl`.

    sources: names. Each has a network of its own, except the last with `residual`, which is the
        rest of the mixture.
    window, hop: samples of the STFT.  bandwidth_hz: highest frequency that the networks read.
    hidden: features inside.  layers: of the LSTM, 0 for none.  bidirectional: whether the LSTM
        reads backwards, too, each direction with half the features.
    mask: whether the output multiplies the mixture's magnitudes instead of being them.
    """

    def __init__(
        self,
        *,
        sources: Sequence[str] = ("vocals", "accompaniment"),
        residual: bool = True,
        sample_rate: int = 44100,
        channels: int = 2,
        window: int = 4096,
        hop: int = 1024,
        bandwidth_hz: float = 16000.0,
        hidden: int = 512,
        layers: int = 3,
        bidirectional: bool = True,
        mask: bool = True,
    ) -> None:
        super().__init__()
        if len(sources) <= residual:
            raise ValueError("residual needs a source beside the rest of the mixture")
        if bidirectional and layers and hidden % 2:
            raise ValueError(f"hidden must be even for both directions, not {hidden}")
        self.sources, self.residual, self.mask = tuple(sources), residual, mask
        self.sample_rate, self.channels = sample_rate, channels
        self.stft = CentredStft(window, hop)
        kept = bins_up_to(bandwidth_hz, sample_rate, window)
        estimated = self.sources[: len(self.sources) - residual]
        self.networks = nn.ModuleDict(
            {
                name: Network(window // 2 + 1, kept, channels, hidden, layers, bidirectional)
                for name in estimated
            }
        )

    @torch.no_grad()
    def set_statistics(self, mean: torch.Tensor, deviation: torch.Tensor) -> None:
        """Start with inputs of mean 0 and deviation 1: (F,) of magnitudes that the mixtures have.

        Bins that hardly vary are taken to vary by 1e-4 of what the one that varies most does.
        """
        deviation = deviation.clamp(min=LEAST * deviation.max())
        network: Any
        for network in self.networks.values():
            network.input_mean.copy_(-mean[: network.kept])
            network.input_scale.copy_(1 / deviation[: network.kept])

    def magnitudes(self, magnitude: torch.Tensor) -> torch.Tensor:
        """What the networks make of magnitudes (B, C, F, N): (B, S, C, F, N), without the rest."""
        outputs = self._outputs(magnitude)
        return outputs * magnitude[:, None] if self.mask else outputs

    def _outputs(self, magnitude):
        return torch.stack([network(magnitude) for network in self.networks.values()], 1)

    def spectra(self, spectrum: torch.Tensor) -> torch.Tensor:
        """The spectra (B, S, C, F, N) of the sources in the mixture's (B, C, F, N), complex."""
        outputs = self._outputs(spectrum.abs())
        if self.mask:  # the same as with the phase, without computing that
            parts = torch.view_as_real(spectrum)[:, None]  # (B, 1, C, F, N, 2)
            estimates = torch.view_as_complex(parts * outputs[..., None])
        else:
            estimates = with_phase(outputs, spectrum[:, None])
        if not self.residual:
            return estimates
        return torch.cat([estimates, spectrum[:, None] - estimates.sum(1, keepdim=True)], 1)
