"""Causal extraction of one voice: a gain per bin, by what the references tell in three ways.

An embedding says who is wanted (FiLM: Perez et al., AAAI 2018). Each frame of the mixture looks up
the references' frame that is most like it, by their spectra, and again by features half-way
through the network, which the references went through, too (USEF: Zeng & Li, "USEF-TSE: Universal
Speaker Embedding Free Target Speaker Extraction", 2024). The first LSTM has listened to the
references when it begins with the mixture. Features are compressed magnitudes re a running level.

B batch, F frequencies, N frames, M frames of the references.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import nn

from sepcli.layers.band_lstm import BandLstm, RunningMean
from sepcli.layers.modules import Modules
from sepcli.layers.speaker import FLOOR, Film, Likeness, Recall, SpeakerEncoder, log_spoken
from sepcli.nn.causal import SpectralModel
from sepcli.nn.filterbank import Stft
from sepcli.nn.model import State

COMPRESSION = 0.3  # power of the magnitudes that the network reads
TYPICAL = 0.9  # likeness of frames of speech


class SpeakerLstm(SpectralModel):
    """Causal extraction of the voice of the references; (B, 1, T) to (B, S, 1, T).

    The defaults have 1,946,539 parameters and, at 16 kHz, 32 ms of algorithmic latency.

    sources: one name, what is kept, or two, it and the rest of the mixture.
    window, hop: samples of the STFT.
    width, hidden: features between the LSTMs, and inside them.  layers: LSTMs, of which one is
        before the look at the references' features.
    keys, values, heads: of this attention.
    sharpness: factor of the cosines by which frames of spectra are looked up.
    embedding, bottleneck: numbers that say who speaks, and that these are mapped to first.
    encoder_bands, encoder_channels, encoder_blocks: of the speaker encoder.
    learn_encoder: whether that is trained, too.
    memory: seconds after which a frame weighs 1/e in the running level.
    alike, steepness: cosine of embeddings at which it is as likely as not that two signals are of
        the same speaker, and how fast that changes with it.
    """

    def __init__(
        self,
        *,
        sources: Sequence[str] = ("speech",),
        sample_rate: int = 16000,
        window: int = 512,
        hop: int = 256,
        width: int = 256,
        hidden: int = 208,
        layers: int = 3,
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
        alike: float = 0.6,
        steepness: float = 12.0,
    ) -> None:
        super().__init__()
        if len(sources) not in (1, 2):
            raise ValueError("speaker_lstm has one mask: name one source, or it and the rest")
        self.sources, self.sample_rate = tuple(sources), sample_rate
        self.stft = Stft(window, hop)
        self.hop, self.delay = hop, self.stft.overlap
        bins = window // 2 + 1
        self.learn_encoder, self.alike, self.steepness = learn_encoder, alike, steepness
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
        self.who = nn.Sequential(nn.Linear(embedding, bottleneck), nn.PReLU())
        self.input = nn.Conv1d(2 * bins + 1, width, 1)
        self.before, self.after = (
            Modules(BandLstm(width, hidden) for _ in range(count)) for count in (1, layers - 1)
        )
        self.recall = Recall(width, keys, values, heads)
        self.films = nn.ModuleList(Film(bottleneck, width) for _ in range(3))
        self.output = nn.Sequential(nn.PReLU(), nn.Conv1d(width, bins, 1))

    def condition(self, references: list[torch.Tensor]) -> Any:
        """What the references (B, 1, T') tell: (embedding, spectra, keys, values, bias, state).

        They are unit vectors (B, E) and (B, F, M), keys and values (B, K, M) of the features, what
        is added to the logits of the frames (B, M), and the state of the first LSTM after them.
        """
        spectra = [self.analyse(x[:, 0]) for x in references]  # (B, F, M) each
        power = torch.view_as_real(torch.cat(spectra, -1)).square().sum(-1) + FLOOR
        bias = log_spoken(power)
        with torch.set_grad_enabled(self.learn_encoder and torch.is_grad_enabled()):
            embedding = self.encoder(power)
        magnitude = power ** (COMPRESSION / 2)
        relative = magnitude / self.mean.whole(magnitude.mean(1, keepdim=True))
        likeness = torch.ones_like(relative[:, :1])
        hidden = self.features(relative, relative, likeness, self.mapped(embedding))
        silence = tuple(lstm.initial_state(1, len(power)) for lstm in self.before)
        hidden, heard = _through(self.before, hidden, silence)
        keys, values = self.recall.remember(hidden)
        return embedding, self.likeness.keys(power), keys, values, bias, heard

    def resemblance(self, x: torch.Tensor, *condition: Any) -> torch.Tensor:
        """How likely it is that signals (B, 1, T) are of whom the references are: (B,), 0 to 1.

        A logistic function of the cosine of the embeddings.
        """
        power = torch.view_as_real(self.analyse(x[:, 0])).square().sum(-1) + FLOOR
        cosine = (self.encoder(power) * condition[0][0]).sum(1)
        return (self.steepness * (cosine - self.alike)).sigmoid()

    def initial_level(self, batch: int) -> State:
        zeros = self.input.weight.new_zeros
        return zeros(batch, 1), zeros(batch, 1)

    def core_state(self, batch: int = 1, *condition: Any) -> State:
        """The state of `core` before the first frame."""
        after = tuple(lstm.initial_state(1, batch) for lstm in self.after)
        return self.initial_level(batch), condition[0][-1], after

    def mapped(self, embedding: torch.Tensor) -> torch.Tensor:
        """The numbers (B, E') that lead the network; those of unit vectors (B, E) are small."""
        return self.who(embedding * embedding.shape[1] ** 0.5)

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
        embedding, references, keys, values, bias, _ = condition[0]
        level, before, after = state
        who = self.mapped(embedding)
        power = x.square().sum(1) + FLOOR  # (B, F, N)
        relative, mean, level = self.relative(power, level)
        found, likeness = self.likeness(power, references, bias)
        found = found ** (COMPRESSION / 2) / mean
        hidden = self.features(relative, found, likeness, who)
        hidden, before = _through(self.before, hidden, before)
        hidden = self.films[1](self.recall(hidden, keys, values, bias), who)
        hidden, after = _through(self.after, hidden, after)
        gains = self.output(self.films[2](hidden, who)).sigmoid()
        return x * gains[:, None], (level, before, after)


def _through(lstms: Iterable[BandLstm], x: torch.Tensor, states: Any) -> tuple[torch.Tensor, State]:
    """Features (B, W, N) through LSTMs one after the other, and their next states."""
    x, following = x.permute(2, 0, 1)[:, None], []  # (N, 1, B, W)
    for lstm, state in zip(lstms, states, strict=True):
        x, state = lstm.step(x, state)
        following.append(state)
    return x[:, 0].permute(1, 2, 0), tuple(following)
