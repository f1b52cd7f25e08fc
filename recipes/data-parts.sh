#!/bin/sh
# Settings of `sepcli train` for recordings in any layout that the scripts here and `sepcli pack` make:
#
#     sh recipes/data-parts.sh DATA OUT    # prints data.train.speech=..., data.valid.noise=..., a line each
#
#     DATA/{train,valid}/{speech,noise,rir}                 folders
#     DATA/{train,valid}.h5, or DATA.h5                     packs; of one, what it keeps for validation
#     DATA/{speech,noise,rir}-{train,valid}.txt             lists, as data-prepare.sh makes them
#     DATA/{speech,noise,rir}, DATA/{speech,noise,rir}.txt  not split: packed into OUT/data.h5, which
#                                                           keeps the last of them for validation
#
# Rooms may be missing. What is not split for one kind is split for all.
set -eu

[ $# -eq 2 ] || {
    sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2
    exit 2
}
out=$2

fail() {
    echo "data-parts.sh: $*" >&2
    exit 1
}

# settings PART KIND PLACE: a line.
setting() {
    echo "data.$1.$2=$3"
}

# of_packs TRAIN VALID: lines of two packs, or of two parts of one, which may lack rooms.
of_packs() {
    for kind in speech noise rir; do
        if [ $kind != rir ] || sepcli pack --stats "${1%:*}" | grep -q '^rir/'; then
            setting train $kind "$1"
            setting valid $kind "$2"
        fi
    done
}

if [ -f "$1" ]; then
    data=$(cd "$(dirname "$1")" && pwd)/$(basename "$1")
    case $data in
    *.h5) of_packs "$data" "$data:validation" ;;
    *) fail "$1: not a pack; name a folder, or FILE.h5 of sepcli pack" ;;
    esac
    exit
fi
data=$(cd "$1" 2>/dev/null && pwd) || fail "$1: no such folder"

if [ -e "$data/train.h5" ]; then
    [ -e "$data/valid.h5" ] || fail "$data: has train.h5, but no valid.h5; pack that, too"
    of_packs "$data/train.h5" "$data/valid.h5"
    exit
fi

# place PART KIND: where the recordings of that part are, if they are split.
place() {
    for found in "$data/$1/$2" "$data/$2-$1.txt"; do
        [ ! -e "$found" ] || { echo "$found"; return; }
    done
}

split=1
for kind in speech noise; do
    for part in train valid; do
        [ -n "$(place $part $kind)" ] || split=
    done
done
if [ -n "$split" ]; then
    for kind in speech noise rir; do
        for part in train valid; do
            found=$(place $part $kind)
            [ -n "$found" ] || [ -z "$(place train $kind)$(place valid $kind)" ] ||
                fail "$data: has $kind for one part, but not for $part"
            [ -z "$found" ] || setting $part $kind "$found"
        done
    done
    exit
fi

set --
for kind in speech noise rir; do
    any=
    for found in "$data/$kind" "$data/$kind.txt" "$data/train/$kind" "$data/valid/$kind" \
        "$data/$kind-train.txt" "$data/$kind-valid.txt"; do
        if [ -e "$found" ]; then
            any=1
            set -- "$@" --$kind "$found"
        fi
    done
    [ -n "$any" ] || [ $kind = rir ] || fail "$data: no $kind; see the layouts in data-parts.sh"
done
mkdir -p "$out"
out=$(cd "$out" && pwd)
sepcli pack -q "$@" --sample-rate 16000 -o "$out/data.h5" --skip-existing >&2 ||
    [ -e "$out/data.h5" ] || exit 1 # what cannot be read is named, and left out
of_packs "$out/data.h5" "$out/data.h5:validation"
