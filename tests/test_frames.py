import numpy as np
import pytest
import scipy.signal

from sepcli.dsp.frames import FrameCutter, OverlapAdd


def through(x, frame, hop, chunk, **options):
    cutter, adder, out = FrameCutter(frame, hop), OverlapAdd(frame, hop, **options), []
    for start in range(0, len(x), chunk):
        cutter.push(x[start : start + chunk])
        while (piece := cutter.pull()) is not None:
            adder.add(piece)
            out.append(adder.read())
    for piece in cutter.flush():
        adder.add(piece)
    out.append(adder.read(last=True))
    return np.concatenate(out)


@pytest.mark.parametrize(("frame", "hop"), [(320, 160), (320, 100), (512, 512), (64, 1)])
@pytest.mark.parametrize("length", [1, 159, 320, 321, 1000, 4096])
@pytest.mark.parametrize("chunk", [1000, 256, 7])
@pytest.mark.parametrize("window", ["rectangular", "hann"])
def test_cutting_and_adding_gives_back_every_sample(frame, hop, length, chunk, window):
    x = np.random.default_rng(length).standard_normal(length).astype(np.float32)
    y = through(x, frame, hop, chunk, window=window)
    assert len(y) >= length
    np.testing.assert_allclose(y[:length], x, atol=1e-6)
    assert not y[length:].any()


def test_frames_are_the_slices_of_the_signal():
    x = np.arange(1000, dtype=np.float32)
    cutter = FrameCutter(320, 160)
    cutter.push(x)
    np.testing.assert_array_equal(cutter.pull(), x[:320])
    np.testing.assert_array_equal(cutter.pull(), x[160:480])


@pytest.mark.parametrize("make", [FrameCutter, OverlapAdd])
@pytest.mark.parametrize(("frame", "hop"), [(320, 0), (320, 321), (0, 0)])
def test_a_hop_that_leaves_gaps_is_refused(make, frame, hop):
    with pytest.raises(ValueError, match="hop <= frame"):
        make(frame, hop)


def test_a_frame_of_the_wrong_size_is_refused():
    with pytest.raises(ValueError, match="expected 320 samples, got 319"):
        OverlapAdd(320, 160).add(np.zeros(319))


def test_frames_that_differ_are_faded_by_the_weights_of_scipys_hann_window():
    adder = OverlapAdd(320, 160, window="hann")
    adder.add(np.zeros(320))
    adder.add(np.ones(320))
    fade = adder.read()[160:]  # periodic, sampled half a step later: sums to 1
    expected = scipy.signal.get_window("hann", 640)[1:640:2][:160]
    np.testing.assert_allclose(fade, expected, atol=1e-6)


def test_samples_are_read_in_any_number_and_none_is_lost():
    x = np.random.default_rng(0).standard_normal(640).astype(np.float32)
    adder, parts = OverlapAdd(320, 160), []
    for start in (0, 160, 320):
        adder.add(x[start : start + 320])
        parts += [adder.read(100), adder.read(0), adder.read(7)]
    assert [len(part) for part in parts] == [100, 0, 7] * 3
    parts += [adder.read(1000), adder.read(50, last=True), adder.read(last=True)]
    assert [len(part) for part in parts[-3:]] == [480 - 321, 50, 110]
    np.testing.assert_allclose(np.concatenate(parts), x, atol=1e-6)


def test_an_unknown_window_names_the_known_ones():
    with pytest.raises(ValueError, match="unknown window 'kaiser'; choose from rectangular, hann"):
        OverlapAdd(320, 160, window="kaiser")
