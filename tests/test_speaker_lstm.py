"""The extractor and its layers, against closed forms and one another."""

import pytest
import torch
from torch.nn import functional as F

from sepcli.layers.speaker import LEAST, Film, Likeness, Recall, SpeakerEncoder, log_spoken, spoken
from sepcli.models import build
from tests.models import SPEAKER, randomise


def powers(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_defaults_are_at_most_two_million_parameters_and_32_ms():
    model = build("speaker_lstm")
    assert sum(p.numel() for p in model.parameters()) == 1_946_539
    assert model.latency == 512


def test_a_frame_that_is_in_the_references_is_found_there_at_its_own_level():
    references = powers(1, 9, 5)
    mixture = 3 * references[..., [4, 2]]
    layer = Likeness(1e4)
    found, likeness = layer(mixture, layer.keys(references), torch.zeros(1, 5).double())
    torch.testing.assert_close(found, mixture, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(likeness, torch.ones(1, 1, 2).double())


def test_looking_up_is_attention_to_cosines():
    references, mixture = powers(2, 9, 5), powers(2, 9, 4, seed=1)
    bias = torch.tensor([0.0, -1, 2, 0, 0]).double().expand(2, -1)
    layer = Likeness(10.0)
    found, _ = layer(mixture, layer.keys(references), bias)
    roots, keys = mixture**0.25, F.normalize(references**0.25, dim=1)
    q, k = roots.transpose(1, 2), keys.transpose(1, 2)
    length = q.norm(dim=2, keepdim=True)
    mask = bias[:, None].expand(-1, 4, -1)
    expected = F.scaled_dot_product_attention(q / length, k, k, mask, scale=10.0) * length
    torch.testing.assert_close(found, expected.transpose(1, 2) ** 4)


def test_attention_to_features_is_that_of_torch():
    torch.manual_seed(0)
    layer = Recall(6, 4, 8, 2)
    x, references, bias = torch.randn(2, 6, 5), torch.randn(2, 6, 7), torch.randn(2, 7)
    keys, values = layer.remember(references)
    heads = [y.unflatten(1, (2, -1)).transpose(2, 3) for y in (layer.query(x), keys, values)]
    found = F.scaled_dot_product_attention(*heads, bias[:, None, None].expand(-1, 2, 5, -1))
    expected = x + layer.output(found.transpose(2, 3).flatten(1, 2))
    torch.testing.assert_close(layer(x, keys, values, bias), expected)


def test_pauses_are_40_db_below_the_loudest_frame():
    frames = torch.tensor([0.0, -30, -40, -60])  # dB
    weights = spoken((10 ** (frames / 10)).expand(1, 1, -1))
    assert weights[0].tolist() == pytest.approx([1, 0.966, 0.5, 0.0013], abs=1e-3)
    torch.testing.assert_close(log_spoken((10 ** (frames / 10)).expand(1, 1, -1)), weights.log())
    assert log_spoken(torch.tensor([[[1.0, 0.0]]])).tolist() == [
        [pytest.approx(0, abs=1e-5), LEAST]
    ]


def test_an_embedding_depends_neither_on_the_level_nor_on_pauses():
    torch.manual_seed(0)
    encoder = SpeakerEncoder(16000, 64, bands=8, channels=6, blocks=0, size=5).double().eval()
    x = powers(2, 33, 20)
    embedding = encoder(x)
    torch.testing.assert_close(embedding.norm(dim=1), torch.ones(2, dtype=torch.float64))
    torch.testing.assert_close(encoder(100 * x), embedding, rtol=1e-5, atol=1e-6)
    with_pause = torch.cat([x, 1e-9 * powers(2, 33, 20, seed=3)], -1)
    torch.testing.assert_close(encoder(with_pause), embedding, rtol=1e-3, atol=1e-3)


def test_an_embedding_changes_nothing_at_first():
    x = torch.randn(2, 3, 4)
    assert torch.equal(Film(5, 3)(x, torch.randn(2, 5)), x)


@pytest.mark.parametrize("gain", [1e-2, 10.0])
def test_neither_the_level_of_the_mixture_nor_of_the_references_matters(gain):
    torch.manual_seed(0)
    model = randomise(build("speaker_lstm", **SPEAKER))
    x, reference = torch.randn(1, 1, 3000), torch.randn(1, 1, 2000)
    with torch.no_grad():
        expected = model(x, model.condition([reference]))
        louder = model(gain * x, model.condition([gain * reference]))
    torch.testing.assert_close(louder, gain * expected, rtol=1e-3, atol=1e-4 * gain)


def test_several_references_are_one_after_the_other_and_another_one_changes_the_output():
    torch.manual_seed(0)
    model = randomise(build("speaker_lstm", **SPEAKER))
    x, (a, b) = torch.randn(1, 1, 1000), torch.randn(2, 1, 1, 1600)
    with torch.no_grad():
        both, one, other = (model(x, model.condition(list(r))) for r in ([a, b], [a], [b]))
    assert not torch.allclose(one, other, atol=1e-3)
    assert not torch.allclose(both, one, atol=1e-4)


def test_the_encoder_is_trained_when_asked_for():
    for learn in (False, True):
        model = build("speaker_lstm", **SPEAKER | {"learn_encoder": learn})
        model(torch.randn(1, 1, 1000), model.condition([torch.randn(1, 1, 1000)])).sum().backward()
        assert (model.encoder.output.weight.grad is not None) is learn


def test_without_listening_references_leave_an_embedding_and_spectra_alone():
    model = build("speaker_lstm", **SPEAKER | {"listen": False})
    embedding, spectra, bias, heard = model.condition([torch.randn(1, 1, 1000)])
    assert heard == ()
    assert embedding.shape == (1, 6)
    assert spectra.shape[2] == bias.shape[1]


def test_features_are_dropped_in_training_alone():
    model = build("speaker_lstm", **SPEAKER | {"dropout": 0.5})
    randomise(model).train()
    x, condition = torch.randn(1, 1, 1000), model.condition([torch.randn(1, 1, 1000)])
    first, second = (model(x, condition) for _ in "ab")
    assert not torch.equal(first, second)
    without = build("speaker_lstm", **SPEAKER).eval()
    without.load_state_dict(model.state_dict())
    assert torch.equal(model.eval()(x, condition), without(x, condition))


def test_neighbouring_frames_of_the_middle_of_a_bin_add_up():
    model = build("speaker_lstm", **SPEAKER | {"neighbours": 9}).double()
    x = torch.cos(2 * torch.pi * 5 / 64 * torch.arange(640, dtype=torch.float64))[None]
    spectra = model.analyse(x)
    parts = torch.stack([spectra.real, spectra.imag], 1)
    beside, last = model.beside(parts, model.silence(1).double())
    sums, differences = beside[..., 2:-2].chunk(2, 1)
    assert torch.equal(last, parts[:, :, :9, -1])
    twice = (2 * spectra[:, :9, 2:-2].abs()) ** 0.3
    torch.testing.assert_close(sums[:, 5], twice[:, 5])
    assert differences[:, 5].max() < 0.05


@pytest.mark.parametrize("wrong", [{"neighbours": 34}, {"neighbours": 2, "hop": 16}])
def test_neighbours_are_bins_of_frames_that_overlap_by_half(wrong):
    with pytest.raises(ValueError, match="neighbours need hops of half the window"):
        build("speaker_lstm", **SPEAKER | wrong)


@pytest.mark.parametrize("sources", [(), ("a", "b", "c")])
def test_there_is_one_mask(sources):
    with pytest.raises(ValueError, match="one mask"):
        build("speaker_lstm", sources=sources)
