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
from torch.nn import functional as F

from sepcli.layers.band_lstm import BandLstm, RunningMean
from sepcli.layers.modules import Modules
from sepcli.layers.speaker import FLOOR, Film, Likeness, Recall, SpeakerEncoder, log_spoken
from sepcli.nn.causal import SpectralModel
from sepcli.nn.filterbank import Stft
from sepcli.nn.model import State

COMPRESSION = 0.3  # power of the magnitudes that the network reads
TYPICAL = 0.9  # likeness of frames of speech
BESIDE = 1.2  # magnitudes of sums and differences re the level, roughly


class SpeakerLstm(SpectralModel):
    """Causal extraction of the voice of the references; (B, 1, T) to (B, S, 1, T).

    The defaults have 1,946,539 parameters and, at 16 kHz, 32 ms of algorithmic latency.

    sources: one name, what is kept, or two, it and the rest of the mixture.
    window, hop: samples of the STFT.
    width, hidden: features between the LSTMs, and inside them.  layers: LSTMs, of which one is
        before the look at the references' features.
    neighbours: bins, from 0 Hz on, of which the network also reads the sums and the differences of
        one frame's spectrum and the last one's: how far a frequency is from the middle of its bin.
    listen: whether the references go through the first LSTM, too; else it begins with silence, and
        there is no look at their features.
    keys, values, heads: of this attention.
    sharpness: factor of the cosines by which frames of spectra are looked up.
    embedding, bottleneck: numbers that say who speaks, and that these are mapped to first.
    encoder_bands, encoder_channels, encoder_blocks: of the speaker encoder.
    learn_encoder: whether that is trained, too.
    dropout: share of the features before each LSTM and the gains that training sets to 0.
    memory: seconds after which a frame weighs 1/e in the running level.
    alike, steepness: cosine of embeddings at which it is as likely as not that two signals are of
        the same speaker, and how fast that changes with it.
    """

    signs: torch.Tensor

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
        neighbours: int = 0,
        listen: bool = True,
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
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if len(sources) not in (1, 2):
            raise ValueError("speaker_lstm has one mask: name one source, or it and the rest")
        self.sources, self.sample_rate = tuple(sources), sample_rate
        self.stft = Stft(window, hop)
        self.hop, self.delay = hop, self.stft.overlap
        bins = window // 2 + 1
        if neighbours > bins or (neighbours and window != 2 * hop):
            raise ValueError(
                f"neighbours need hops of half the window, and at most its {bins} bins"
            )
        self.neighbours = neighbours
        signs = 1.0 - 2 * (torch.arange(neighbours) % 2)  # the middle of a bin turns by so much
        self.register_buffer("signs", signs[:, None], persistent=False)
        self.learn_encoder, self.alike, self.steepness = learn_encoder, alike, steepness
        self.dropout = dropout
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
        self.input = nn.Conv1d(2 * bins + 1 + 2 * neighbours, width, 1)
        self.before, self.after = (
            Modules(BandLstm(width, hidden) for _ in range(count)) for count in (1, layers - 1)
        )
        self.recall = Recall(width, keys, values, heads) if listen else None
        self.films = nn.ModuleList(Film(bottleneck, width) for _ in range(3))
        self.output = nn.Sequential(nn.PReLU(), nn.Conv1d(width, bins, 1))

    def condition(self, references: list[torch.Tensor]) -> Any:
        """What the references (B, 1, T') tell: (embedding, spectra, bias, heard).

        They are unit vectors (B, E) and (B, F, M), what is added to the logits of the frames
        (B, M), and, if it listens to them, keys and values (B, K, M) of the features, and the state
        of the first LSTM after them.
        """
        spectra = torch.cat([self.analyse(x[:, 0]) for x in references], -1)  # (B, F, M)
        power = torch.view_as_real(spectra).square().sum(-1) + FLOOR
        bias = log_spoken(power)
        with torch.set_grad_enabled(self.learn_encoder and torch.is_grad_enabled()):
            embedding = self.encoder(power)
        return embedding, self.likeness.keys(power), bias, self._heard(spectra, power, embedding)

    def _heard(self, spectra, power, embedding):
        """What the references leave, as spectra (B, F, M): (keys, values, state), or nothing."""
        if self.recall is None:
            return ()
        magnitude = power ** (COMPRESSION / 2)
        mean = self.mean.whole(magnitude.mean(1, keepdim=True))
        relative, likeness = magnitude / mean, torch.ones_like(mean)
        parts = torch.stack([spectra.real, spectra.imag], 1)
        beside, _ = self.beside(parts, self.silence(len(power)))
        hidden = self.features(relative, relative, likeness, beside / mean, self.mapped(embedding))
        silence = tuple(lstm.initial_state(1, len(power)) for lstm in self.before)
        hidden, state = _through(self.before, hidden, silence)
        return *self.recall.remember(hidden), state

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

    def silence(self, batch: int) -> State:
        """The bins of the last frame that the next one reads, before the first: (B, 2, K)."""
        return self.input.weight.new_zeros(batch, 2, self.neighbours) if self.neighbours else ()

    def core_state(self, batch: int = 1, *condition: Any) -> State:
        """The state of `core` before the first frame."""
        before, after = (
            tuple(lstm.initial_state(1, batch) for lstm in part)
            for part in (self.before, self.after)
        )
        heard = condition[0][-1]
        level = self.initial_level(batch)
        return level, self.silence(batch), heard[-1] if heard else before, after

    def mapped(self, embedding: torch.Tensor) -> torch.Tensor:
        """The numbers (B, E') that lead the network; those of unit vectors (B, E) are small."""
        return self.who(embedding * embedding.shape[1] ** 0.5)

    def relative(self, power: torch.Tensor, state: Any) -> tuple[torch.Tensor, torch.Tensor, State]:
        """Compressed magnitudes (B, F, N) re their running mean, that mean, the next state."""
        magnitude = power ** (COMPRESSION / 2)
        level, *state = self.mean.step(magnitude.mean(1, keepdim=True), *state)
        return magnitude / level, level, tuple(state)

    def beside(self, x: torch.Tensor, past: Any) -> tuple[torch.Tensor, State]:
        """Compressed magnitudes (B, 2K, N) of sums and differences of neighbours in (B, 2, F, N).

        past: of the frame before the first, (B, 2, K), see `silence`; it returns the next one.
        """
        low = x[:, :, : self.neighbours]
        if not self.neighbours:
            return low[:, 0], ()
        last = torch.cat([past[..., None], low[..., :-1]], -1) * self.signs
        power = torch.cat([low + last, low - last], 2).square().sum(1) + FLOOR
        return power ** (COMPRESSION / 2), low[..., -1]

    def features(
        self,
        relative: torch.Tensor,
        found: torch.Tensor,
        likeness: torch.Tensor,
        beside: torch.Tensor,
        who: torch.Tensor,
    ) -> torch.Tensor:
        """(B, W, N) of magnitudes, those of the references, and how like each other they are."""
        likeness = (likeness - TYPICAL) / (1 - TYPICAL)
        x = self.input(torch.cat([relative - 1, found - 1, likeness, beside - BESIDE], 1))
        return self._led(0, x, who)

    def _led(self, film, x, who):
        """Features (B, W, N) as a FiLM leads them, some of them dropped in training."""
        x = self.films[film](x, who)
        return F.dropout(x, self.dropout) if self.training and self.dropout else x

    def core(self, x: torch.Tensor, state: Any, *condition: Any) -> tuple[torch.Tensor, State]:
        """Weigh the mixture's spectrum (B, 2, F, N) by the gains; the next state."""
        embedding, references, bias, heard = condition[0]
        level, past, before, after = state
        who = self.mapped(embedding)
        power = x.square().sum(1) + FLOOR  # (B, F, N)
        relative, mean, level = self.relative(power, level)
        found, likeness = self.likeness(power, references, bias)
        found = found ** (COMPRESSION / 2) / mean
        beside, past = self.beside(x, past)
        hidden = self.features(relative, found, likeness, beside / mean, who)
        hidden, before = _through(self.before, hidden, before)
        if self.recall is not None:
            hidden = self.recall(hidden, *heard[:2], bias)
        hidden = self._led(1, hidden, who)
        hidden, after = _through(self.after, hidden, after)
        gains = self.output(self._led(2, hidden, who)).sigmoid()
        return x * gains[:, None], (level, past, before, after)


def _through(lstms: Iterable[BandLstm], x: torch.Tensor, states: Any) -> tuple[torch.Tensor, State]:
    """Features (B, W, N) through LSTMs one after the other, and their next states."""
    x, following = x.permute(2, 0, 1)[:, None], []  # (N, 1, B, W)
    for lstm, state in zip(lstms, states, strict=True):
        x, state = lstm.step(x, state)
        following.append(state)
    return x[:, 0].permute(1, 2, 0), tuple(following)
