#!/bin/sh
# Lists and folders that `sepcli mix` and `pack` read, of corpora that are already on this machine.
#
#     sh recipes/data-prepare.sh CORPUS PATH OUT
#
#     dns          Deep Noise Suppression Challenge 1-5    speech.txt noise.txt rir.txt
#     ears         p001 to p107                            speech-{train,valid,test}.txt
#     librispeech  train-*, dev-*, test-*                  speech-{train,valid,test}.txt
#     musan        speech, noise, music                    speech.txt noise.txt music.txt
#     musdb18      *.stem.mp4, with ffmpeg                 {train,valid,test}/TRACK/STEM.wav
#     musdb18-hq   the same as WAV                         {train,valid,test}/TRACK, linked
#     slr26        simulated rooms                         rir.txt
#     slr28        RIRS_NOISES                             rir.txt noise.txt
#     vctk         0.80 to 0.92, first microphone          speech.txt
#     wham         wham_noise or high_res_wham             noise-{train,valid,test}.txt or noise.txt
#
# A corpus may lack parts: lists are made of what is there. Recordings are listed, never copied.
set -eu

# The tracks by which MUSDB's makers validate; the other 86 of train/ are for training.
MUSDB_VALID='Actions - One Minute Smile
Clara Berry And Wooldog - Waltz For My Victims
Johnny Lokke - Promises & Lies
Patrick Talbot - A Reason To Leave
Triviul - Angelsaint
Alexander Ross - Goodbye Bolero
Fergessen - Nos Palpitants
Leaf - Summerghost
Skelpolu - Human Mistakes
Young Griffo - Pennies
ANiMAL - Rockshow
James May - On The Line
Meaxic - Take A Step
Traffic Experiment - Sirens'

say() {
    echo "data-prepare.sh: $*" >&2
}

fail() {
    say "$@"
    exit 1
}

# list NAME TEST...: OUT/NAME.txt of the recordings below PATH that pass find's tests, if any do.
list() {
    name=$out/$1.txt
    shift
    (cd "$path" && find -L . -type f \( -name '*.wav' -o -name '*.flac' \) "$@") >"$out/.found"
    [ -s "$out/.found" ] || return 0
    sort "$out/.found" | while IFS= read -r file; do
        printf '%s\n' "$path/${file#./}"
    done >"$out/.list"
    mv "$out/.list" "$name"
    made=1
    say "$name: $(($(wc -l <"$name"))) recordings"
}

# tracks COMMAND FIND-TEST...: OUT/{train,valid,test}/TRACK by COMMAND SOURCE TRACK.
tracks() {
    make=$1
    shift
    for part in train test; do
        [ -d "$path/$part" ] || continue
        (cd "$path/$part" && find -L . ! -name . -prune "$@") >"$out/.found"
        while IFS= read -r track; do
            track=${track#./}
            name=${track%.stem.mp4} into=$part
            [ $part = test ] || ! printf '%s\n' "$MUSDB_VALID" | grep -Fqx "$name" || into=valid
            mkdir -p "$out/$into"
            [ -e "$out/$into/$name" ] || $make "$path/$part/$track" "$out/$into/$name"
            made=1
        done <"$out/.found"
    done
    for part in train valid test; do
        [ ! -d "$out/$part" ] || say "$out/$part: $(($(ls "$out/$part" | wc -l))) tracks"
    done
}

link() {
    ln -s "$1" "$2"
}

# The five streams of a track, complete or not there.
decode() {
    rm -rf "$out/.track"
    mkdir "$out/.track"
    ffmpeg -nostdin -v error -i "$1" \
        -map 0:a:0 "$out/.track/mixture.wav" -map 0:a:1 "$out/.track/drums.wav" \
        -map 0:a:2 "$out/.track/bass.wav" -map 0:a:3 "$out/.track/other.wav" \
        -map 0:a:4 "$out/.track/vocals.wav"
    mv "$out/.track" "$2"
}

[ $# -eq 3 ] || {
    sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2
    exit 2
}
corpus=$1
path=$(cd "$2" 2>/dev/null && pwd) || fail "$2: no such folder; name the one with $corpus in it"
mkdir -p "$3"
out=$(cd "$3" && pwd)
made=
trap 'rm -rf "$out/.found" "$out/.list" "$out/.track"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
LC_ALL=C
export LC_ALL

case $corpus in
dns)
    set -- ! -path '*test_set*' ! -path '*testset*' # which have a folder clean/, too
    list speech \( -path './clean*' -o -path './datasets*/clean*' \) "$@"
    list noise \( -path './noise*' -o -path './datasets*/noise*' \) "$@"
    list rir -path '*/impulse_responses*' ! -name '*noise*' ! -path '*/pointsource_noises/*' "$@"
    ;;
ears) # as in EARS-WHAM: what is no speech is left out
    set -- ! -name 'interjection*' ! -name 'melodic*' ! -name 'nonverbal*' ! -name 'vegetative*'
    list speech-train -path './p0[0-9][0-9]/*' "$@"
    list speech-valid -path './p10[01]/*' "$@"
    list speech-test -path './p10[2-7]/*' "$@"
    ;;
librispeech)
    list speech-train -path '*/train-*'
    list speech-valid -path '*/dev-*'
    list speech-test -path '*/test-*'
    ;;
musan)
    for kind in speech noise music; do
        list $kind \( -path "./$kind/*" -o -path "./musan/$kind/*" \)
    done
    ;;
musdb18)
    command -v ffmpeg >/dev/null || fail "no ffmpeg to decode AAC; install it, or take musdb18-hq"
    tracks decode -name '*.stem.mp4'
    ;;
musdb18-hq)
    tracks link -type d
    ;;
slr26)
    list rir
    ;;
slr28) # isotropic noises have their name from the room, point sources from their folder
    list rir ! -name '*noise*' ! -path '*/pointsource_noises/*'
    list noise \( -name '*noise*' -o -path '*/pointsource_noises/*' \)
    ;;
vctk)
    list speech -path '*/wav48*' ! -name '*_mic2.*'
    ;;
wham)
    list noise-train -path '*/tr/*'
    list noise-valid -path '*/cv/*'
    list noise-test -path '*/tt/*'
    list noise -path '*/audio/*'
    ;;
*)
    fail "$corpus: not a corpus this knows; choose from dns ears librispeech musan musdb18" \
        "musdb18-hq slr26 slr28 vctk wham"
    ;;
esac
[ -n "$made" ] || fail "$path: does not look like $corpus; name the folder that has its parts in it"
