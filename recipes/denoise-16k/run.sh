#!/bin/sh
# Noise suppression at 16 kHz in 10 ms hops: a DMgTCM UNet of 1,995,211 parameters learns to map
# noisy speech of -5 to 5 dB to its complex spectrum, 5 s items; meant for eight hours on one GPU,
# not run yet.
# DATA=FOLDER|FILE.h5: recordings in any layout of data-parts.sh, such as DATA/{train,valid}/{speech,
# noise,rir}, lists of data-prepare.sh, what data-debian.sh makes, or packs; else all is made up.
# SMALL=1: the same system with 125,917 parameters and shorter items, for a CPU.
# MASK=1: another system of that size: a complex mask near one in place of the mapping, magnitudes
# compressed, the reverberant speech as the target, and SI-SDR in the loss.
# SMOKE=1: a tiny model and short items, half a minute.
# Settings may follow, e.g. run.sh --device cuda --set train.workers=8
set -eu

if [ -n "${DATA:-}" ]; then
    here=$(dirname "$0")
    mkdir -p "$here/out"
    sh "$here/../data-parts.sh" "$DATA" "$here/out" >"$here/out/data"
    while IFS= read -r setting; do
        set -- --set "$setting" "$@"
    done <"$here/out/data"
fi
if [ -n "${SMOKE:-}" ]; then
    set -- --set model.width=8 --set model.tcm_width=32 --set model.tcm_hidden=8 \
        --set model.blocks=4 --set model.repeats=1 \
        --set data.train.duration_s=0.5 --set data.valid.duration_s=0.5 \
        --set data.valid.items=16 --set train.steps=60 --set train.validate_every=30 \
        --set train.batch=4 --set train.lr=3e-3 --set train.workers=0 \
        --fail-under loss_drop=0.2 "$@"
elif [ -n "${SMALL:-}" ]; then
    set -- --set model.width=16 --set model.tcm_width=64 --set model.tcm_hidden=24 \
        --set model.repeats=1 --set data.train.duration_s=2 --set data.valid.duration_s=2 \
        --set data.valid.items=50 --set train.steps=3000 --set train.validate_every=500 \
        --set train.lr=1e-3 --set train.final_lr=0 --set train.workers=0 \
        --fail-under improvement_db=5 "$@"
elif [ -n "${MASK:-}" ]; then
    set -- --set model.width=16 --set model.tcm_width=64 --set model.tcm_hidden=24 \
        --set model.repeats=1 --set model.mask=true --set model.compression=0.3 \
        --set data.train.duration_s=1.5 --set data.valid.duration_s=3 --set data.valid.items=50 \
        --set data.train.target=reverb --set data.valid.target=reverb \
        --set train.steps=600 --set train.validate_every=150 --set train.batch=8 \
        --set 'train.loss={si_sdr: 1.0, spectral: 1.0}' --set train.lr=3e-3 \
        --set train.final_lr=0 --set train.warmup=30 --set train.workers=0 \
        --fail-under si_sdr_db=5 "$@"
else
    set -- --fail-under si_sdr_db=5 "$@"
fi

cd "$(dirname "$0")"
sepcli train config.yaml -o out --overwrite "$@"
cat out/scores.json
