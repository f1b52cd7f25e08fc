"""Bring estimates and references that lie in different places together, as samples."""

import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from sepcli.audio import split_track
from sepcli.cluster import objects
from sepcli.cluster.objects import Remote, is_url
from sepcli.errors import SepcliError
from sepcli.files import composed
from sepcli.samples.folders import holds_mixture
from sepcli.samples.sample import Sample, split_audio_name
from sepcli.samples.stems import ACCOMPANIMENT, is_music, parts_of_accompaniment, stem_name
from sepcli.samples.streams import is_audio_file, read_samples

UNNAMED = "audio"  # the target of files whose name does not tell one
ITSELF = ""  # the key of a place that is one sample, rather than a collection of them


@dataclass(frozen=True)
class _Found:
    """What a place offers under one key."""

    sample: Sample
    signals: dict  # target -> member of the sample
    mix: str | None  # member


def pair(estimates: str, references: str, mixtures: str | None = None) -> list[Sample]:
    """Return a list of samples with est.*, ref.* and maybe mix, out of two or three places.

    A place is an audio file, a folder, a sample tar, a list, or "-" for standard input. Two files
    belong together, and so do two folders that are one sample each; otherwise it is the same key
    that counts: KEY/est.T.wav and KEY/ref.T.wav, TRACK/vocals.wav in both (MUSDB), KEY/T.wav and
    KEY/ref.T.wav, KEY.wav in both, or KEY.wav and the only target of KEY/. Files beside one that is
    called like a stem of MUSDB are the stems of a track, whatever their names. Without `mixtures`,
    the mixture is the one that lies with the references, or else with the estimates. No file is
    opened.

    Estimates come in their order, also those without a reference, and with all references of their
    key; references without an estimate come last. Raises SepcliError when nothing belongs together,
    or a mixture is missing.
    """
    ests, refs = _read(estimates, "est"), _read(references, "ref")
    mixes = _read(mixtures, "mix") if mixtures else None
    samples, matched, taken = {}, set(), set()
    for key, est in ests.items():
        for target, member in est.signals.items():
            there, target, reference = _counterpart(key, target, est, refs)
            sample = samples.setdefault(there, Sample(there or est.sample.key))
            _add(sample, f"est.{target}", est, member)
            if reference:
                taken.add((there, reference))
                _add(sample, f"ref.{target}", refs[there], reference)
            if reference or _has_parts(refs.get(there), target):
                matched.add(there)
                if mixed := _mixture(there, est, refs, mixes, mixtures):
                    _add(sample, "mix", mixed, mixed.mix)
    if not any(est.signals for est in ests.values()):
        raise SepcliError(
            f"{estimates}: no estimates, {_example(ests)} has {_members(ests)}; "
            "name the folder that has est.* or files called like the references"
        )
    if not matched:
        raise SepcliError(
            f"{estimates} and {references}: no names in common, here {_example(ests)}, "
            f"there {_example(refs)}; give an estimate the name of its reference"
        )
    for key, ref in refs.items():
        sample = samples.setdefault(key, Sample(key))
        for target, member in ref.signals.items():
            if (key, member) not in taken:
                _add(sample, f"ref.{target}", ref, member)
    found = (each.sample for place in (ests, refs, mixes or {}) for each in place.values())
    return [*samples.values(), *(sample for sample in found if sample.fault)]


def _read(place, role):
    """Key -> _Found of all that plays a role in a place."""
    samples = list(read_samples(place))
    is_file = is_audio_file(place) or (is_url(place) and bool(split_audio_name(place)[1]))
    if place == "-":
        is_file = [list(sample.members) for sample in samples] == [["mix.wav"]]
    found, taken = {}, Counter(composed(sample.key) for sample in samples)
    for sample in samples:
        mix, key = sample.find("mix"), composed(sample.key)
        key = key if taken[key] == 1 else sample.key
        if mix and (is_file or _has_own_name(sample, mix)):
            found[key] = _Found(sample, {UNNAMED: mix}, mix if role == "mix" else None)
        else:
            found[key] = _Found(sample, _signals(sample, role), mix)
    if not is_file:
        found = _with_tracks(found, role, objects.place(place))
    if is_file or (len(found) == 1 and _lies_in(place, *found.values())):
        return {ITSELF: found.popitem()[1]}
    return found


def _with_tracks(found, role, place):
    """`found` with the files of a folder as one track, where some are called like stems."""
    folders = {}
    for key, each in found.items():
        if UNNAMED in each.signals:
            folder, _, name = key.rpartition("/")
            folders.setdefault(folder, {})[name] = each
    tracks = {}
    for folder, files in folders.items():
        if role != "mix" and len(files) > 1 and is_music(files):
            tracks |= dict.fromkeys((f"{folder}/{name}".lstrip("/") for name in files), folder)
    joined = {}
    for key, each in found.items():
        if key not in tracks:
            joined[key] = each
        elif tracks[key] not in joined:
            joined[tracks[key]] = _track(role, tracks[key] or place.name, folders[tracks[key]])
    return joined


def _track(role, key, files):
    """A track of files, by the names of their stems."""
    members = {
        f"{role}.{name}{split_audio_name(member)[1]}": each.sample.members[member]
        for name, each in files.items()
        for member in [each.signals[UNNAMED]]
    }
    sample = Sample(key, members=members)
    return _Found(sample, sample.ests() if role == "est" else sample.refs(), None)


def _has_own_name(sample, member):
    """Whether a member is a file called, say, KEY.wav or vocals.wav rather than mix.wav."""
    content = sample.members[member]
    is_named = isinstance(content, Path | Remote) and content.name != member
    return is_named and not holds_mixture(content)


def _signals(sample, role):
    """Target -> member for signals that name their role, else for those that have it by place."""
    if role == "est":
        return sample.ests() or {
            target: member
            for target, member in sample.refs().items()
            if _has_own_name(sample, member)
        }
    return sample.refs()


def _lies_in(folder, found):
    """Whether a sample's files are right in `folder`."""
    contents = found.sample.members.values()
    is_bare = UNNAMED in found.signals
    places = [c for c in contents if isinstance(c, Path | Remote) and split_track(c)[1] is None]
    above = objects.place(folder.rstrip("/")) if is_url(folder) else Path(folder)
    kind = type(above)
    return not is_bare and any(kind(os.path.dirname(place)) == above for place in places)


def _counterpart(key, target, est, refs):
    """(key, target, member) of the reference of an estimate; the member is None without one."""
    folder, _, name = key.rpartition("/")
    wanted = [(key, target)]
    if target == UNNAMED:
        wanted.append((folder, name))
        if key in refs and len(refs[key].sample.targets) == 1:
            wanted.append((key, refs[key].sample.targets[0]))
    elif len(est.signals) == 1:
        wanted.append((key, UNNAMED))
    for there, known in wanted:
        if there in refs and (member := refs[there].signals.get(known)):
            return there, target if known == UNNAMED else known, member
    if target == UNNAMED and folder in refs:  # goes with its siblings there
        return folder, name, None
    return key, target, None


def _has_parts(ref, target):
    """Whether a reference that is not there can be made of others that are."""
    return ref and stem_name(target) == ACCOMPANIMENT and parts_of_accompaniment(ref.signals)


def _add(sample, name, found, member):
    sample.members[f"{name}{split_audio_name(member)[1]}"] = found.sample.members[member]


def _mixture(key, est, refs, mixes, place):
    """What has the mixture of the pair `key`; None when there is none and nobody asked for it."""
    nearby = (refs[key], est) if mixes is None else filter(None, [mixes.get(key)])
    found = next((source for source in nearby if source.mix), None)
    if found is None and mixes is not None:
        raise SepcliError(f"{place}: no mixture for {key or est.sample.key}; add it, or omit --mix")
    return found


def _example(found):
    return next((each.sample.key for each in found.values()), "nothing")


def _members(found):
    return next((", ".join(each.sample.ordered()) for each in found.values()), "nothing")
