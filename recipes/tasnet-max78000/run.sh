#!/bin/sh
# From floating point to the chip: a causal separator of 188,416 weights learns to remove noise of
# -5 to 15 dB, is quantised to the integers of a MAX78000 and fine-tuned with them, and becomes a
# folder for Analog Devices' tools. The learned filterbank of the TasNet is the model's default;
# the Fourier transform of config.yaml makes an eighth of its frames, and so learns faster.
# Meant for a few hours on one CPU core; not run yet.
# DATA=FOLDER|FILE.h5: recordings in any layout of data-parts.sh, such as DATA/{train,valid}/{speech,
# noise}, lists of data-prepare.sh, what data-debian.sh makes, or packs; else all is made up.
# SMOKE=1: a small model and short items, a minute or two.
# Settings of both trainings may follow, e.g. run.sh --threads 2 --set train.workers=2
set -eu

STEPS=2000 ITEMS=100 GOAL=si_sdri_db=4  # of fine-tuning; of the table; of the float model
if [ -n "${DATA:-}" ]; then
    here=$(dirname "$0")
    mkdir -p "$here/out"
    sh "$here/../data-parts.sh" "$DATA" "$here/out" >"$here/out/data"
    while IFS= read -r setting; do
        case $setting in
        *.rir=*) ;; # what the chip separates is dry
        *) set -- --set "$setting" "$@" ;;
        esac
    done <"$here/out/data"
fi
if [ -n "${SMOKE:-}" ]; then
    STEPS=20 ITEMS=10 GOAL=improvement_db=1
    set -- --set model.hidden=48 --set model.dilations='[1, 2, 4, 8]' \
        --set data.train.duration_s=1 --set data.valid.duration_s=1 --set data.valid.items=16 \
        --set train.steps=60 --set train.validate_every=30 --set train.warmup=10 "$@"
fi

cd "$(dirname "$0")"
sepcli train config.yaml -o out/float --overwrite --fail-under "$GOAL" "$@"
sepcli quantize out/float -o out/chip.safetensors --overwrite --target max78000 --mode qat \
    -c config.yaml "$@" --set train.ema=0 --steps "$STEPS" --lr 1e-4 --max-drop 0.5 --budget 442368
sepcli export-max78000 out/chip.safetensors -o out/export --overwrite

set -- --snr -5:15 -n "$ITEMS" --seed 7
if [ -n "${DATA:-}" ]; then
    set -- --speech "$(sed -n 's/^data.valid.speech=//p' out/data)" \
        --noise "$(sed -n 's/^data.valid.noise=//p' out/data)" "$@"
fi
sepcli mix "$@" -o - > out/mixtures.tar
for model in float chip.safetensors; do
    echo "$model"
    sepcli separate -m "out/$model" - < out/mixtures.tar > out/separated.tar
    sepcli eval out/separated.tar --markdown
done
sepcli eval out/separated.tar --json > out/scores.json
