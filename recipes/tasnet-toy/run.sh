#!/bin/sh
# A Conv-TasNet of 250,469 parameters learns to tell an AM/FM tone in noise from a few sines:
# two epochs of 5,000 one-second snippets, a quarter of an hour on one CPU core.
# SMOKE=1: a smaller model and shorter snippets, half a minute.
# Settings may follow, e.g. run.sh --threads 2 --set train.seed=1
set -eu
cd "$(dirname "$0")"

if [ -n "${SMOKE:-}" ]; then
    set -- --set model.blocks=4 --set model.repeats=1 \
        --set data.train.duration_s=0.25 --set data.valid.duration_s=0.25 \
        --set data.valid.items=32 --set train.steps=60 --set train.validate_every=30 \
        --set train.warmup=10 --set train.lr=3e-3 --fail-under loss_drop=0.5 "$@"
else
    set -- --fail-under improvement_db=3 "$@"
fi

sepcli train config.yaml -o out --overwrite "$@"
cat out/scores.json
