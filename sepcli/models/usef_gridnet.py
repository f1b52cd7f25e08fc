"""Target-speaker extraction: mixture frames attend to the frames of a reference, then a GridNet.

Zeng et al., "USEF-TSE: Universal speaker embedding free target speaker extraction", 2024: no
speaker embedding, the mixture's bands ask those of the reference by attention. The blocks are
those of `sepcli.layers.gridnet`, the bands those of `sepcli.layers.bands`.
B batch, T samples, C channels (1), N frames, F bins, K bands, D features.
"""

from collections.abc import Sequence

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from sepcli.layers import masks
from sepcli.layers.bands import WIDE_BINS, BandMerge, BandSplit, mel_bands, wide_bands
from sepcli.layers.gridnet import Attention, FullGridBlock, GridBlock
from sepcli.layers.modules import Modules
from sepcli.nn.spectral import CentredStft, OfflineSpectralModel


class Film(nn.Module):
    """Scale and shift by what the reference is on average (Perez et al., AAAI 2018)."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.scale = nn.Linear(features, features)
        self.shift = nn.Linear(features, features)
        for linear, bias in ((self.scale, 1.0), (self.shift, 0.0)):
            nn.init.zeros_(linear.weight)
            nn.init.constant_(linear.bias, bias)

    def forward(self, x: torch.Tensor, mean: torch.Tensor) -> torch.Tensor:
        """Map (B, N, K, D) with the mean (B, K, D) of the reference's frames."""
        return self.scale(mean)[:, None] * x + self.shift(mean)[:, None]


class UsefGridNet(OfflineSpectralModel):
    """The speaker of a reference out of a mixture; (B, 1, T) and a condition to (B, S, 1, T).

    Not causal. With the defaults 11,785,196 parameters; 7,805,420 with hidden=192,
    reinject=(0, 2, 4), film=False. A new model passes the mixture through.

    sources: one name, the speaker that is extracted, or two, that and the rest of the mixture.
    n_fft, window, hop: samples of the STFT.
    bands: how many, equally wide in mel; 0 for the 53 that belong to n_fft 2048 at 48 kHz.
    features: of a band.  hidden: features of an LSTM's direction.  heads: of attention.
    blocks: of the GridNet.  reinject: numbers of the blocks before which the bands ask the
        reference once more.  film: scale and shift by the mean of the reference, first.
    block: `short` or `full`, the one of the paper.
    reference_dropout: probability that training goes without the reference of an item.
    checkpointing: compute blocks again in the backward pass, which saves memory and changes no bit.
    """

    channels = 1

    def __init__(
        self,
        *,
        sources: Sequence[str] = ("speech",),
        sample_rate: int = 48000,
        n_fft: int = 2048,
        window: int = 960,
        hop: int = 480,
        bands: int = 0,
        features: int = 128,
        hidden: int = 256,
        heads: int = 4,
        blocks: int = 6,
        reinject: Sequence[int] = (0, 1, 2, 3, 4, 5),
        film: bool = True,
        block: str = "short",
        reference_dropout: float = 0.0,
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        if len(sources) not in (1, 2):
            raise ValueError("usef_gridnet has one mask: name one source, or it and the rest")
        if block not in ("short", "full"):
            raise ValueError(f"unknown block {block!r}; choose from short, full")
        if wrong := [i for i in reinject if not 0 <= i < blocks]:
            raise ValueError(f"reinject names blocks 0 to {blocks - 1}, not {wrong[0]}")
        bins = n_fft // 2 + 1
        if not bands and bins != WIDE_BINS:
            raise ValueError(f"n_fft {n_fft} has no table of bands; say how many by bands")
        self.sources, self.sample_rate = tuple(sources), sample_rate
        self.reinject = tuple(reinject)
        self.reference_dropout, self.checkpointing = reference_dropout, checkpointing
        self.stft = CentredStft(window, hop, n_fft=n_fft)
        edges = mel_bands(bins, bands, sample_rate) if bands else wide_bands()
        self.split = BandSplit(edges, features)
        self.ask = Attention(features, heads)
        self.film = Film(features) if film else None
        self.blocks = Modules(
            GridBlock(features, hidden, heads)
            if block == "short"
            else FullGridBlock(features, hidden, heads, len(edges))
            for _ in range(blocks)
        )
        self.ask_again = nn.ModuleDict({str(i): Attention(features, heads) for i in self.reinject})
        self.merge = BandMerge(edges, features, bins)

    def condition(self, references: list[torch.Tensor]) -> torch.Tensor:
        """What the model keeps of references (B, 1, T') of the target: features (B, M, K, D)."""
        spectra = [_parts(self.analyse(each)[:, 0]) for each in references]
        return torch.cat([self.split(spectrum) for spectrum in spectra], 1)

    def spectra(self, spectrum: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        """The spectra (B, S, 1, F, N) of the sources in the mixture's (B, 1, F, N), complex."""
        mask = self.mask(_parts(spectrum[:, 0]), self._dropped(condition))
        estimate = spectrum * torch.complex(mask[:, 0], mask[:, 1])[:, None]
        return masks.with_rest(estimate, spectrum, self.sources)

    def mask(self, parts: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        """The complex mask (B, 2, F, N) of the mixture's spectrum, in the same form."""
        y = self.ask(self.split(parts), condition)
        if self.film is not None:
            y = self.film(y, condition.mean(1))
        for i in range(len(self.blocks)):
            if self.checkpointing and self.training:
                y = checkpoint(self._block, i, y, condition, use_reentrant=False)
            else:
                y = self._block(i, y, condition)
        return self.merge(y)

    def _block(self, i, y, condition):
        if i in self.reinject:
            y = self.ask_again[str(i)](y, condition)
        return self.blocks[i](y)

    def _dropped(self, condition):
        if not self.training or not self.reference_dropout:
            return condition
        kept = torch.rand(len(condition), 1, 1, 1, device=condition.device)
        return condition * (kept >= self.reference_dropout)


def _parts(spectrum):
    """Real and imaginary parts (B, 2, F, N) of a complex spectrum (B, F, N)."""
    return torch.view_as_real(spectrum).permute(0, 3, 1, 2)
