"""Sound in and out: files, pipes and bytes ⇄ float32 (channels, samples)."""

from sepcli.audio.listing import Listing, begins_as_sound
from sepcli.audio.reading import AudioInfo, Reader, decode, info, open_blocks, read
from sepcli.audio.streams import Peekable
from sepcli.audio.tracks import split_track
from sepcli.audio.writing import FORMATS, Writer, names_a_file, write
from sepcli.containers.formats import AUDIO_EXTENSIONS
from sepcli.containers.sniffing import sniff
from sepcli.containers.wav import encode_wav
from sepcli.signals.resampling import Resampler, resample

__all__ = [
    "AUDIO_EXTENSIONS",
    "FORMATS",
    "AudioInfo",
    "Listing",
    "Peekable",
    "Reader",
    "Resampler",
    "Writer",
    "begins_as_sound",
    "decode",
    "encode_wav",
    "info",
    "names_a_file",
    "open_blocks",
    "read",
    "resample",
    "sniff",
    "split_track",
    "write",
]
