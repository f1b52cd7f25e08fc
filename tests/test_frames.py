import numpy as np
import pytest

from sepcli.dsp.frames import FrameCutter, OverlapAdd


def through(x, frame, hop, chunk):
    cutter, adder, out = FrameCutter(frame, hop), OverlapAdd(frame, hop), []
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
def test_cutting_and_adding_gives_back_every_sample(frame, hop, length, chunk):
    x = np.random.default_rng(length).standard_normal(length).astype(np.float32)
    y = through(x, frame, hop, chunk)
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
