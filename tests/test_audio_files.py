"""Sound files: what is written comes back, whole, in blocks and in crops."""

import wave

import numpy as np
import pytest
import scipy.io.wavfile
import soundfile

from sepcli import audio
from tests.sounds import fmt, pipe, wav

LOSSLESS = [
    (extension, subtype)
    for extension, (_, subtypes) in audio.FORMATS.items()
    for subtype in subtypes
    if subtype in ("PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE")
]
LOSSY = [("ogg", "VORBIS"), ("ogg", "OPUS"), ("oga", "VORBIS"), ("opus", "OPUS"), ("mp3", None)]
BITS = {"PCM_U8": 8, "PCM_16": 16, "PCM_24": 24, "PCM_32": 32}
RATE = 16000


def tones(channels, frames=RATE, sample_rate=RATE):
    """A different sine in every channel, low enough for the bass channel of 5.1."""
    t = np.arange(frames) / sample_rate
    pitches = 40 + 10 * np.arange(channels)[:, None]  # Hz, (C, 1)
    return (0.5 * np.sin(2 * np.pi * pitches * t)).astype(np.float32)


def noise(channels, frames, seed=0):
    rng = np.random.default_rng(seed)
    return rng.uniform(-1, 1, (channels, frames)).astype(np.float32)


def snr_db(estimate, reference):
    return 10 * np.log10(np.sum(reference**2) / np.sum((estimate - reference) ** 2))


def half_a_step(subtype):
    """The largest rounding error of a subtype, with float32's own on top."""
    return (2.0 ** -BITS[subtype] + 2.0**-25) if subtype in BITS else 0.0


@pytest.mark.parametrize("channels", [1, 2, 6])
@pytest.mark.parametrize(("extension", "subtype"), LOSSLESS)
def test_lossless_files_come_back_to_half_a_quantisation_step(
    tmp_path, extension, subtype, channels
):
    path = tmp_path / f"x.{extension}"
    sound = noise(channels, 1001) * np.float32(0.99)
    assert audio.write(path, sound, RATE, subtype=subtype) == 0

    back, rate = audio.read(path)
    assert (back.dtype, back.shape, rate) == (np.float32, sound.shape, RATE)
    np.testing.assert_allclose(back, sound, rtol=0, atol=half_a_step(subtype))

    expected, rate = soundfile.read(path, dtype="float32", always_2d=True)
    assert rate == RATE
    np.testing.assert_array_equal(back, expected.T)

    about = audio.info(path)
    assert (about.frames, about.sample_rate, about.channels) == (1001, RATE, channels)
    assert (about.format, about.subtype) == (audio.FORMATS[extension][0], subtype)


@pytest.mark.parametrize("channels", [1, 2, 6])
@pytest.mark.parametrize(("extension", "subtype"), LOSSY)
def test_lossy_files_keep_every_channel_where_it_was(tmp_path, extension, subtype, channels):
    path = tmp_path / f"x.{extension}"
    sound = tones(2 if extension == "mp3" and channels == 6 else channels, frames=3 * RATE)
    audio.write(path, sound, RATE, subtype=subtype)
    back, rate = audio.read(path)
    assert (rate, back.shape) == (RATE, sound.shape)
    for channel, expected in zip(back, sound, strict=True):
        assert snr_db(channel[2000:-2000], expected[2000:-2000]) > 12


@pytest.mark.parametrize(
    ("extension", "expected"),
    [("wav", "FLOAT"), ("flac", "PCM_24"), ("aiff", "FLOAT"), ("au", "FLOAT"), ("caf", "FLOAT")],
)
def test_the_default_subtype_keeps_at_least_24_bits(tmp_path, extension, expected):
    audio.write(tmp_path / f"x.{extension}", noise(1, 100), RATE)
    assert audio.info(tmp_path / f"x.{extension}").subtype == expected


@pytest.mark.parametrize("channels", [1, 2, 6])
@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_32", "FLOAT", "DOUBLE"])
def test_scipy_reads_our_wav_the_same(tmp_path, subtype, channels):
    sound = noise(channels, 333)
    audio.write(tmp_path / "x.wav", sound, 44100, subtype=subtype)
    rate, samples = scipy.io.wavfile.read(tmp_path / "x.wav")
    values = samples.reshape(333, channels).T.astype(np.float64)  # (T,) or (T, C) -> (C, T)
    if subtype == "PCM_U8":
        values -= 128
    if subtype in BITS:
        values /= 2.0 ** (BITS[subtype] - 1)
    assert rate == 44100
    np.testing.assert_array_equal(values.astype(np.float32), audio.read(tmp_path / "x.wav")[0])


@pytest.mark.parametrize(("subtype", "width"), [("PCM_16", 2), ("PCM_24", 3), ("PCM_32", 4)])
def test_the_standard_library_reads_our_integer_wav(tmp_path, subtype, width):
    audio.write(tmp_path / "x.wav", np.array([[0.5, -0.5, 0.0]], np.float32), 8000, subtype=subtype)
    with wave.open(str(tmp_path / "x.wav")) as file:
        assert file.getparams()[:4] == (1, width, 8000, 3)
        data = file.readframes(3)
    values = [int.from_bytes(data[i : i + width], "little", signed=True) for i in (0, width)]
    assert values == [2 ** (8 * width - 2), -(2 ** (8 * width - 2))]


@pytest.mark.parametrize("channels", [1, 2, 6])
@pytest.mark.parametrize("container", ["WAV", "WAVEX", "RF64"])
@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"])
def test_we_read_what_libsndfile_writes(tmp_path, container, subtype, channels):
    path = tmp_path / "x.wav"
    sound = noise(channels, 777)
    soundfile.write(path, sound.T, 22050, format=container, subtype=subtype)
    expected, _ = soundfile.read(path, dtype="float32", always_2d=True)
    back, rate = audio.read(path)
    assert rate == 22050
    np.testing.assert_array_equal(back, expected.T)


@pytest.mark.parametrize("subtype", ["ULAW", "ALAW", "IMA_ADPCM", "MS_ADPCM"])
def test_wav_files_with_a_codec_inside_are_read_as_well(tmp_path, subtype):
    soundfile.write(tmp_path / "x.wav", tones(1)[0], RATE, subtype=subtype)
    expected, _ = soundfile.read(tmp_path / "x.wav", dtype="float32")
    np.testing.assert_array_equal(audio.read(tmp_path / "x.wav")[0][0], expected)
    data = (tmp_path / "x.wav").read_bytes()
    np.testing.assert_array_equal(audio.decode(data, "x.wav")[0][0], expected)


@pytest.mark.parametrize("sample_rate", [8000, 16000, 24000, 48000])
@pytest.mark.parametrize(("extension", "subtype"), [("wav", None), ("flac", None), *LOSSY])
def test_blocks_and_crops_equal_the_whole_file(tmp_path, capfd, extension, subtype, sample_rate):
    path = tmp_path / f"x.{extension}"
    sound = 0.3 * tones(1, 120_000, sample_rate) + 0.1 * noise(1, 120_000)
    audio.write(path, sound, sample_rate, subtype=subtype)
    whole, _ = audio.read(path)
    assert whole.shape == sound.shape

    with audio.open_blocks(path) as reader:
        blocks = list(reader.blocks(7001))
    assert {block.shape[1] for block in blocks[:-1]} == {7001}
    np.testing.assert_allclose(np.concatenate(blocks, axis=1), whole, rtol=0, atol=1e-6)

    for start in np.random.default_rng(0).integers(0, 110_000, 12):
        crop, _ = audio.read(path, start=int(start), stop=int(start) + 5000)
        np.testing.assert_allclose(crop, whole[:, start : start + 5000], rtol=0, atol=1e-6)
    assert capfd.readouterr().err == ""  # libmpg123 grumbles when it is sent about


def test_a_crop_ends_with_the_file_like_a_slice(tmp_path):
    audio.write(tmp_path / "x.wav", noise(2, 100), RATE)
    whole, _ = audio.read(tmp_path / "x.wav")
    for start, stop in [(90, 120), (100, 110), (500, 600), (5, 5), (0, None), (40, None)]:
        crop, _ = audio.read(tmp_path / "x.wav", start=start, stop=stop)
        np.testing.assert_array_equal(crop, whole[:, start:stop])
    with pytest.raises(ValueError, match="0 <= start <= stop"):
        audio.read(tmp_path / "x.wav", start=-1)
    with pytest.raises(ValueError, match="0 <= start <= stop"):
        audio.read(tmp_path / "x.wav", start=5, stop=4)


def test_a_crop_does_not_read_the_rest_of_the_file(tmp_path):
    path = tmp_path / "x.wav"
    audio.write(path, noise(1, 100), RATE)
    data = bytearray(path.read_bytes())
    data[-4:] = np.float32(np.nan).tobytes()
    path.write_bytes(data)
    assert audio.read(path, stop=99)[0].shape == (1, 99)


def test_reading_at_another_rate_resamples(tmp_path):
    audio.write(tmp_path / "x.wav", tones(2), RATE)
    sound, rate = audio.read(tmp_path / "x.wav", sample_rate=8000)
    assert (sound.shape, rate) == ((2, 8000), 8000)
    np.testing.assert_array_equal(sound, audio.resample(tones(2), RATE, 8000))


def test_the_content_decides_not_the_extension(tmp_path):
    sound = tones(1)
    audio.write(tmp_path / "x.flac", sound, RATE)
    (tmp_path / "x.flac").rename(tmp_path / "x.wav")
    assert audio.info(tmp_path / "x.wav").format == "FLAC"
    np.testing.assert_allclose(audio.read(tmp_path / "x.wav")[0], sound, rtol=0, atol=2**-23)


@pytest.mark.parametrize("extension", ["wav", "flac", "ogg", "mp3", "aiff", "au", "caf", "w64"])
def test_bytes_decode_to_what_the_file_holds(tmp_path, extension):
    path = tmp_path / f"x.{extension}"
    audio.write(path, tones(2), RATE)
    decoded, rate = audio.decode(path.read_bytes(), "x")
    assert rate == RATE
    np.testing.assert_allclose(decoded, audio.read(path)[0], rtol=0, atol=1e-6)
    decoded[:] = 0  # it may be changed in place


def test_wav_bytes_have_exact_sizes_and_an_18_byte_fmt_chunk():
    data = audio.encode_wav(np.zeros((2, 5), np.float32), 44100)
    assert data[:46] == (
        b"RIFF" + (len(data) - 8).to_bytes(4, "little") + b"WAVEfmt \x12\0\0\0"
        b"\x03\0\x02\0" + (44100).to_bytes(4, "little") + (44100 * 8).to_bytes(4, "little") +
        b"\x08\0\x20\0\0\0data" + (40).to_bytes(4, "little")
    )  # fmt: skip
    assert len(data) == 46 + 40


@pytest.mark.parametrize("shape", [(1, 0), (1, 1), (1, 1000), (2, 333), (6, 10)])
def test_wav_bytes_come_back_bit_by_bit(shape):
    sound = noise(*shape) * 3  # beyond full scale is fine in floats
    data = audio.encode_wav(sound, RATE)
    assert data == audio.encode_wav(np.asfortranarray(sound), RATE)
    if shape[1]:
        decoded, rate = audio.decode(data, "x")
        assert rate == RATE
        np.testing.assert_array_equal(decoded, sound)


def test_only_float_arrays_of_channels_and_samples_are_taken(tmp_path):
    for wrong in (np.zeros(5, np.float32), np.zeros((1, 2, 3), np.float32)):
        with pytest.raises(ValueError, match=r"expected \(channels, samples\)"):
            audio.encode_wav(wrong, RATE)
    with pytest.raises(ValueError, match="expected floats"):
        audio.encode_wav(np.zeros((1, 5), np.int16), RATE)
    with (
        pytest.raises(ValueError, match=r"expected \(2, samples\), got shape \(1, 5\)"),
        audio.Writer(tmp_path / "x.wav", RATE, 2) as writer,
    ):
        writer.write(np.zeros((1, 5), np.float32))


def _flac_with_length(tmp_path, length):
    """A FLAC of one second whose header tells `length` (36 bits at the end of 8 bytes)."""
    audio.write(tmp_path / "x.flac", tones(1), RATE)
    data = bytearray((tmp_path / "x.flac").read_bytes())
    field = int.from_bytes(data[18:26], "big")
    assert field & (2**36 - 1) == RATE
    data[18:26] = ((field >> 36 << 36) | length).to_bytes(8, "big")
    (tmp_path / "x.flac").write_bytes(data)
    return tmp_path / "x.flac"


def test_a_flac_that_does_not_tell_its_length_is_read_to_its_end(tmp_path):
    path = _flac_with_length(tmp_path, 0)
    sound, _ = audio.read(path)
    np.testing.assert_allclose(sound, tones(1), rtol=0, atol=2**-23)
    assert audio.info(path).frames == RATE
    crop, _ = audio.read(path, start=10_000, stop=11_000)
    np.testing.assert_array_equal(crop, sound[:, 10_000:11_000])


def test_a_recording_whose_sizes_were_never_filled_in_is_read_to_its_end(tmp_path):
    data = bytearray(audio.encode_wav(tones(1, 100), RATE))
    for riff_size in (0, 38, 0xFFFFFFFF):
        data[4:8] = riff_size.to_bytes(4, "little")
        data[42:46] = bytes(4)
        (tmp_path / "x.wav").write_bytes(data)
        np.testing.assert_array_equal(audio.read(tmp_path / "x.wav")[0], tones(1, 100))


PCM = np.round(9000 * np.sin(np.arange(2000) / 9)).astype("<i4")  # 16 bits


def _bytes(values, width):
    return values.astype("<i4").view(np.uint8).reshape(-1, 4)[:, :width].tobytes()


@pytest.mark.parametrize(
    ("bits", "block", "channels", "data"),
    [
        (24, 4, 1, _bytes(PCM << 16, 4)),  # in the upper bytes
        (24, 4, 1, _bytes((PCM << 8) + 1, 4)),  # in the lower ones, as ALSA has it
        (20, 4, 1, _bytes(PCM << 16, 4)),
        (24, 4, 1, _bytes((PCM << 16) + 3, 4)),  # 32 after all
        (24, 8, 2, _bytes((PCM << 8) + 1, 4)),
        (16, 4, 1, _bytes(PCM << 16, 4)),
        (16, 4, 1, _bytes(PCM, 4)),
        (16, 3, 1, _bytes(PCM << 8, 3)),
        (16, 0, 1, _bytes(PCM, 2)),  # from here on, a wrong size of frames
        (16, 1, 1, _bytes(PCM, 2)),
        (16, 4, 1, _bytes(PCM, 2)),
        (16, 2, 2, _bytes(PCM, 2)),
        (16, 6, 2, _bytes(PCM, 2)),
        (24, 6, 1, _bytes(PCM << 8, 3)),
        (24, 0, 2, _bytes(PCM << 8, 3)),
        (12, 2, 1, _bytes(PCM & ~15, 2)),
    ],
)
def test_a_wav_that_contradicts_itself_is_read_as_its_samples_tell(
    tmp_path, bits, block, channels, data
):
    file = wav(fmt(channels=channels, block=block, bits=bits), (b"data", data))
    (tmp_path / "x.wav").write_bytes(file)
    tolerance = 2**-11 if bits == 12 else 2**-23
    found = [audio.read(tmp_path / "x.wav")[0], audio.decode(file, "x")[0]]
    with audio.open_blocks(pipe(file)) as reader:
        found.append(reader.rest())
    for signal in found:
        np.testing.assert_allclose(signal.T.ravel(), PCM / 2**15, rtol=0, atol=tolerance)
    crop, _ = audio.read(tmp_path / "x.wav", start=700, stop=800)
    np.testing.assert_array_equal(crop, signal[:, 700:800])
