"""Causal extraction of one voice: a gain per bin, by what the references tell in three ways.

An embedding says who is wanted (FiLM: Perez et al., AAAI 2018). Each frame of the mixture looks up
the references' frame that is most like it, by their spectra, and again by features half-way
through the network, which the references went through, too (USEF: Zeng & Li, "USEF-TSE: Universal
Speaker Embedding Free Target Speaker Extraction", 2024). The network is the temporal
convolutional one of Conv-TasNet on compressed magnitudes; features are re a running level.

B batch, F frequencies, N frames, M frames of the references.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from sepcli.nn.band_lstm import RunningMean
from sepcli.nn.causal import SpectralModel
from sepcli.nn.filterbank import Stft
from sepcli.nn.model import State
from sepcli.nn.speaker import FLOOR, Film, Likeness, Recall, SpeakerEncoder, spoken
from sepcli.nn.tcn import Tcn

COMPRESSION = 0.3  # power of the magnitudes that the network reads
TYPICAL = 0.9  # likeness of frames of speech


class SpeakerTcn(SpectralModel):
    """Causal extraction of the voice of the references; (B, 1, T) to (B, S, 1, T).

    The defaults have 1,967,062 parameters and, at 16 kHz, 32 ms of algorithmic latency.

    sources: one name, what is kept, or two, it and the rest of the mixture.
    window, hop: samples of the STFT.
    width, hidden, blocks: of the two temporal convolutional networks, one before and one after
        the look at the references' features, with dilations 1, 2, 4, ... in each.
    keys, values, heads: of this attention.
    sharpness: factor of the cosines by which frames of spectra are looked up.
    embedding, bottleneck: numbers that say who speaks, and that these are mapped to first.
    encoder_bands, encoder_channels, encoder_blocks: of the speaker encoder.
    learn_encoder: whether that is trained, too.
    memory: seconds after which a frame weighs 1/e in the running level.
    """

    def __init__(
        self,
        *,
        sources: Sequence[str] = ("speech",),
        sample_rate: int = 16000,
        window: int = 512,
        hop: int = 256,
        width: int = 256,
        hidden: int = 184,
        blocks: int = 7,
        keys: int = 64,
        values: int = 128,
        heads: int = 4,
        sharpness: float = 100.0,
        embedding: int = 256,
        bottleneck: int = 64,
        encoder_bands: int = 40,
        encoder_channels: int = 96,
        encoder_blocks: int = 4,
        learn_encoder: bool = False,
        memory: float = 0.992,
    ) -> None:
        super().__init__()
        if len(sources) not in (1, 2):
            raise ValueError("speaker_tcn has one mask: name one source, or it and the rest")
        self.sources, self.sample_rate = tuple(sources), sample_rate
        self.stft = Stft(window, hop)
        self.hop, self.delay = hop, self.stft.overlap
        bins = window // 2 + 1
        self.learn_encoder = learn_encoder
        self.encoder = SpeakerEncoder(
            sample_rate,
            window,
            bands=encoder_bands,
            channels=encoder_channels,
            blocks=encoder_blocks,
            size=embedding,
        )
        self.mean = RunningMean(memory * sample_rate / hop)
        self.likeness = Likeness(sharpness)
        self.who = nn.Linear(embedding, bottleneck)
        self.input = nn.Conv1d(2 * bins + 1, width, 1)
        self.before, self.after = (
            Tcn(width, hidden, skip=0, blocks=blocks, repeats=1) for _ in range(2)
        )
        self.recall = Recall(width, keys, values, heads)
        self.films = nn.ModuleList(Film(bottleneck, width) for _ in range(3))
        self.output = nn.Sequential(nn.PReLU(), nn.Conv1d(width, bins, 1))

    def condition(self, references: list[torch.Tensor]) -> Any:
        """What the references (B, 1, T') tell: (who, spectra, keys, values, bias).

        They are the numbers of the speaker (B, E), unit vectors (B, F, M), keys and values
        (B, K, M) of the features, and what is added to the logits of the frames (B, M).
        """
        spectra = [self.analyse(x[:, 0]) for x in references]  # (B, F, M) each
        power = torch.view_as_real(torch.cat(spectra, -1)).square().sum(-1) + FLOOR
        bias = (spoken(power) + FLOOR).log()
        with torch.set_grad_enabled(self.learn_encoder and torch.is_grad_enabled()):
            embedding = self.encoder(power)
        who = self.who(embedding)
        level = self.initial_level(len(power))
        relative, _, level = self.relative(power, level)
        likeness = torch.ones_like(relative[:, :1])
        hidden = self.features(relative, relative, likeness, who)
        hidden, _ = self.before.step(hidden, self.before.initial_state(len(power)))
        keys, values = self.recall.remember(hidden)
        return who, self.likeness.keys(power), keys, values, bias

    def embed(self, x: torch.Tensor) -> torch.Tensor:
        """Unit vectors (B, E) that tell whose speech (B, 1, T) is."""
        power = torch.view_as_real(self.analyse(x[:, 0])).square().sum(-1) + FLOOR
        return self.encoder(power)

    def initial_level(self, batch: int) -> State:
        zeros = self.who.weight.new_zeros
        return zeros(batch, 1), zeros(batch, 1)

    def core_state(self, batch: int = 1, *condition: Any) -> State:
        """The state of `core` before the first frame."""
        tcns = self.before.initial_state(batch), self.after.initial_state(batch)
        return (self.initial_level(batch), *tcns)

    def relative(self, power: torch.Tensor, state: Any) -> tuple[torch.Tensor, torch.Tensor, State]:
        """Compressed magnitudes (B, F, N) re their running mean, that mean, the next state."""
        magnitude = power ** (COMPRESSION / 2)
        level, *state = self.mean.step(magnitude.mean(1, keepdim=True), *state)
        return magnitude / level, level, tuple(state)

    def features(
        self, relative: torch.Tensor, found: torch.Tensor, likeness: torch.Tensor, who: torch.Tensor
    ) -> torch.Tensor:
        """(B, W, N) of magnitudes, those of the references, and how like each other they are."""
        likeness = (likeness - TYPICAL) / (1 - TYPICAL)
        x = self.input(torch.cat([relative - 1, found - 1, likeness], 1))
        return self.films[0](x, who)

    def core(self, x: torch.Tensor, state: Any, *condition: Any) -> tuple[torch.Tensor, State]:
        """Weigh the mixture's spectrum (B, 2, F, N) by the gains; the next state."""
        who, references, keys, values, bias = condition[0]
        level, before, after = state
        power = x.square().sum(1) + FLOOR  # (B, F, N)
        relative, mean, level = self.relative(power, level)
        found, likeness = self.likeness(power, references, bias)
        found = found ** (COMPRESSION / 2) / mean
        hidden = self.features(relative, found, likeness, who)
        hidden, before = self.before.step(hidden, before)
        hidden = self.films[1](self.recall(hidden, keys, values, bias), who)
        hidden, after = self.after.step(hidden, after)
        gains = self.output(self.films[2](hidden, who)).sigmoid()
        return x * gains[:, None], (level, before, after)
