#!/bin/sh
# Open-Unmix learns to tell vocals from accompaniment; the test songs are separated by the models
# after 25, 50 and 150 epochs, with the mixture's phase, a Wiener filter, and the phase of
# Griffin-Lim, and scored as in the literature; out/report-*.html has all scores, the learning curve
# and what the songs sound like.
# MUSDB=FOLDER: songs in FOLDER/{train,valid,test}/SONG/STEM.wav, as data-prepare.sh leaves them;
# else speech and noise are made up in place of songs.
# EPOCHS='25 50 150': after which epochs models are kept and scored; the last one ends the training.
# MODEL=NAME|FILE|FOLDER TEST=FOLDER: no training; MODEL separates the songs in TEST, which may be the
# test/ of MUSDB18 or MUSDB18-HQ as it is unpacked, and is scored.
# SMOKE=1: a tiny model and short songs, half a minute.
# Run again, it resumes where it was stopped, or with more EPOCHS; only smoke tests start again.
# Settings may follow, e.g. run.sh --device cuda --set train.workers=8
set -eu

epochs=${EPOCHS:-25 50 150}
form=${MUSDB:+musdb}
form=${SMOKE:+smoke}${form:-made}
if [ -n "${SMOKE:-}" ]; then
    epochs=${EPOCHS:-1 2}
    set -- --set model.hidden=16 --set model.layers=1 --set data.train.items=16 \
        --set data.train.duration_s=1 --set data.valid.duration_s=2 --set train.batch=2 \
        --set train.lr=3e-3 --set train.workers=0 --set train.best=si_sdr_db \
        --fail-under improvement_db=0.5 "$@"
fi
epochs=$(echo $epochs) # on one line
set -- --set "train.epochs=${epochs##* }" \
    --set "train.keep_epochs=[$(echo "$epochs" | sed 's/ /, /g')]" "$@"

songs=${MUSDB:+$(cd "$MUSDB" && pwd)}
test=${TEST:+$(cd "$TEST" && pwd)}
model=${MODEL:-}
[ ! -e "$model" ] || model=$(cd "$(dirname "$model")" && pwd)/$(basename "$model")
if [ -n "$model" ] && [ -z "$test" ]; then
    echo "run.sh: MODEL needs songs to separate; add TEST=FOLDER" >&2
    exit 2
fi
cd "$(dirname "$0")"
. ../common.sh
mkdir -p out
if [ -z "$model" ]; then
    begin_or_resume "$form"
    [ "$begin" = --resume ] || rm -rf out/made
    set -- "$begin" "$@"

    songs_or_made "$songs"
    if [ -z "$songs" ]; then
        set -- --set model.channels=1 --set data.train.downmix=true --set data.valid.downmix=true \
            --set data.train.items=640 --set data.valid.items=3 "$@"
    fi
fi
test=${test:-out/songs/test}

[ -n "$model" ] || sepcli train config.yaml -o out "$@"

# score NAME TITLE MODEL OPTIONS-OF-SEPARATE...: separate and score the test songs. A shell forgets
# that the first command of a pipe has failed, so a file remembers.
score() {
    report=out/report-$1.html title=$2 with=$3
    shift 3
    rm -f out/failed out/median.md
    {
        sepcli separate -q -m "$with" "$@" "$test" \
            --target vocals --target accompaniment || touch out/failed
    } | sepcli eval -q - --median-of-median --metrics sdr --html "$report" \
        --title "$title" --model "$with" -o out/median.md
    [ ! -e out/failed ]
}

# The score of one of the two, out of the table of sepcli eval; an error where there is none.
median() {
    sed -n "s/^| $1 | median of median | *\([-0-9.]*\) |\$/\1/p" out/median.md | grep .
}

# row MODEL METHOD: a row of the table, of what was just scored.
row() {
    vocals=$(median vocals)
    accompaniment=$(median accompaniment)
    echo "| $1 | $2 | $vocals | $accompaniment |" >>out/table.md
}

# rows NAME MODEL: a row for each way to a signal from what the model estimates.
rows() {
    for phase in mixture wiener griffin-lim; do
        case $phase in
        mixture) how= ;;
        wiener) how='--wiener 1' ;;
        griffin-lim) how=--griffin-lim ;;
        esac
        score "$(echo "$1" | tr ' ' -)-$phase" "Open-Unmix, $1, $phase" "$2" $how
        row "$1" "$phase"
    done
}

{
    echo '| model | phase | vocals SDR, dB | accompaniment SDR, dB |'
    echo '|---|---|--:|--:|'
} >out/table.md

# Doing nothing: the mixture is the estimate of both.
rm -rf out/mixtures
for mixture in "$test"/*/mixture.*; do
    [ -e "$mixture" ] || continue # files of MUSDB18 with all stems
    song=out/mixtures/$(basename "$(dirname "$mixture")")
    mkdir -p "$song"
    for stem in vocals accompaniment; do
        ln -s "$(cd "$(dirname "$mixture")" && pwd)/${mixture##*/}" "$song/$stem.${mixture##*.}"
    done
done
if [ -e out/mixtures ]; then
    sepcli eval -q out/mixtures "$test" --median-of-median --metrics sdr -o out/median.md
    row none 'the mixture itself'
fi
if [ -n "$model" ]; then
    rows "$(basename "$model" .safetensors)" "$model"
else
    for epoch in $epochs; do
        rows "$epoch epochs" "out/epoch-$epoch.safetensors"
    done
fi
for published in 'UMX | 6.32' 'UMXHQ | 6.25' 'UMX-L | 7.21'; do
    echo "| published: ${published% | *} | Wiener filter, four sources | ${published#* | } | |"
done >>out/table.md
cat out/table.md
