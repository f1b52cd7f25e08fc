#!/bin/sh
# Vocals and accompaniment of stereo songs at 44.1 kHz: deep_unet, 4,705,760 parameters, on batches
# that are made where the training is; 21 minutes on a third of a CPU core that computes in bfloat16.
# DATA=FOLDER: FOLDER/train/{songs,vocals,music}, folders of songs with stems, of voices alone, and
# of music without any, each of which counts the same; songs with stems in FOLDER/valid/songs, and
# in FOLDER/test/KIND if there are any to score with that choose nothing. Else speech and noise are
# made up in place of songs. render.py makes songs, ../data-debian.sh brings music.
# SPLEETER=testcheckpoint0.ckpt: what the network begins with, see start.py; the model is then the
# mean of where it began and where it got. Else it is trained from nothing.
# SMOKE=1: a tiny model and short songs, half a minute.
# Run again, it resumes where it was stopped; only smoke tests start again.
# Settings may follow, e.g. run.sh --device cuda --set train.batch=32
# out/card.md has the scores, out/best.safetensors (with SPLEETER out/vocals.safetensors) is the model.
set -eu

goal=improvement_db=5
data=${DATA:+$(cd "$DATA" && pwd)}
spleeter=${SPLEETER:+$(cd "$(dirname "$SPLEETER")" && pwd)/$(basename "$SPLEETER")}
cd "$(dirname "$0")"
. ../common.sh
mkdir -p out
form=${SMOKE:+smoke}${data:+data}
begin_or_resume "${form:-made}"

# sources FOLDER: the folders in it, or itself, as a list.
sources() {
    list=
    for folder in "$1"/*/; do
        [ ! -d "$folder" ] || list="$list, ${folder%/}"
    done
    list=${list:-, $1}
    echo "[${list#, }]"
}

if [ -n "$data" ]; then
    for kind in songs vocals music; do
        [ $kind != songs ] && [ ! -d "$data/train/$kind" ] ||
            set -- --set "data.train.$kind=$(sources "$data/train/$kind")" "$@"
    done
    set -- --set "data.valid.stems=$data/valid/songs" "$@"
    tests=$data/test
    [ -d "$tests" ] || tests=$data/valid
else
    tests=out/songs
    if [ "$begin" = --overwrite ]; then
        rm -rf out/made out/songs
        sepcli mix -q -n 16 --sample-rate 44100 --duration "${SMOKE:+4}" --snr -8:2 -o out/made
        mixtures_as_songs
    fi
    set -- --set data.train.songs=out/songs/train --set data.valid.stems=out/songs/valid "$@"
    tests=out/tests
    mkdir -p "$tests"
    ln -sfn ../songs/test "$tests/made"
fi
if [ -n "${SMOKE:-}" ]; then
    goal=loss_drop=1
    set -- --set 'train.loss={stft_si_sdr: 1.0}' --set train.best=loss \
        --set model.window=1024 --set model.hop=256 --set model.bins=512 \
        --set 'model.widths=[8, 12, 16, 16]' --set model.last=2 --set data.train.songs_minutes=1 \
        --set data.train.vocals_minutes=1 --set data.train.music_minutes=1 \
        --set data.train.duration_s=1 --set data.train.excerpt_s=2 --set data.train.halls=4 \
        --set data.valid.duration_s=2 --set data.valid.items=8 --set train.steps=60 \
        --set train.validate_every=30 --set train.warmup=5 --set train.lr=3e-3 \
        --set train.ema=0.9 --set train.autocast=none "$@"
fi

if [ -n "$spleeter" ] && [ -n "$data" ]; then
    [ -e out/start.safetensors ] ||
        python3 start.py "$spleeter" out/start.safetensors "$data"/train/songs/*
    [ "$begin" = --resume ] || set -- --init out/start.safetensors "$@"
    goal=si_sdr_db=5 # it may well be there at the start
fi
sepcli train config.yaml -o out "$begin" --fail-under "$goal" "$@"
model=out/best.safetensors
if [ -e out/start.safetensors ]; then
    model=out/vocals.safetensors
    python3 ../average.py "$model" out/start.safetensors out/last.safetensors
fi

# SDR of BSS Eval v4 of each kind of songs, medians over frames of a second.
reports=
rm -rf out/estimates
for songs in "$tests"/*/; do
    kind=$(basename "$songs")
    sepcli separate -q -m "$model" "$songs" -o "out/estimates/$kind"
    sepcli eval -q "out/estimates/$kind" "$songs" --metrics sdr --median-of-median \
        -o "out/$kind.json"
    reports="$reports $kind=out/$kind.json"
done
python3 ../card.py out $reports >out/card.md
cat out/card.md
