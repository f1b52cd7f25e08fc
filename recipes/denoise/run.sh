#!/bin/sh
# Noise suppression at 16 kHz in 16 ms hops: band_lstm, 976,410 parameters, on batches that are made
# where the training is; about an hour and a half on one CPU core that computes in bfloat16. The
# shipped model denoise was trained with these losses and this distribution, but did not begin from
# nothing: see recipes/TRIALS.md.
# DATA=FOLDER: recordings in FOLDER/{train,valid}/{speech,noise,rir}; else everything is made up.
# SMOKE=1: a tiny model and short items, half a minute.
# Settings may follow, e.g. run.sh --device cuda --set train.batch=64
set -eu

if [ -n "${DATA:-}" ]; then
    DATA=$(cd "$DATA" && pwd)
    for part in train valid; do
        set -- --set "data.$part.speech=$DATA/$part/speech" \
            --set "data.$part.noise=$DATA/$part/noise" --set "data.$part.rir=$DATA/$part/rir" "$@"
    done
fi
goal=improvement_db=5
if [ -n "${SMOKE:-}" ]; then
    goal=loss_drop=0.2
    set -- --set model.channels=8 --set model.hidden=8 --set model.layers=1 \
        --set model.full_width=48 --set model.full_hidden=24 --set model.full_repeats=1 \
        --set data.train.speech_minutes=1 --set data.train.noise_minutes=1 \
        --set data.train.rooms=5 --set data.train.duration_s=1 --set data.train.excerpt_s=2 \
        --set data.valid.duration_s=1 --set data.valid.items=16 --set train.steps=60 \
        --set train.validate_every=30 --set train.batch=8 --set train.warmup=10 \
        --set train.autocast=none "$@"
fi

cd "$(dirname "$0")"
sepcli train config.yaml -o out --overwrite --fail-under "$goal" "$@"
cat out/scores.json
