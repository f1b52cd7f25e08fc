#!/bin/sh
# Extraction of one speaker at 48 kHz by a reference: USEF-GridNet, 11,785,196 parameters, two
# phases of training. Meant for days on one GPU; not run yet.
# DATA=FOLDER: recordings in FOLDER/{train,valid}/{speech,noise,rir}, and in FOLDER/test if there are
# any to score with that choose nothing, speech by speaker: speech/SPEAKER/*.wav. They are packed
# first. Else everything is made up.
# V1=1: the first form, 7,805,420 parameters, three phases, the last one with discriminators.
# SMOKE=1: a tiny model and short items, a minute.
# Run again, it resumes where it was stopped; only smoke tests start again.
# Settings may follow, e.g. run.sh --device cuda --set train.autocast=bf16
# out/card.md has the scores beside the published ones, out/best.safetensors is the model.
set -eu

config=config.yaml goal=si_sdri_db=3 items=100 seconds=4
[ -z "${V1:-}" ] || config=v1.yaml
data=${DATA:+$(cd "$DATA" && pwd)}
cd "$(dirname "$0")"
. ../common.sh
mkdir -p out
form=${SMOKE:+smoke}${V1:+v1}${data:+data}
begin_or_resume "${form:-made}"

tested=valid
if [ -n "$data" ]; then
    pack_parts "$data" 48000
    for part in train valid; do
        for kind in speech noise rir; do
            set -- --set "data.$part.$kind=out/$part.h5" "$@"
        done
    done
fi
if [ -n "${SMOKE:-}" ]; then
    goal=loss_drop=0.1 items=4 seconds=2
    [ -z "$data" ] || goal=improvement_db=0  # whatever the recordings are, 40 steps may not help
    set -- --set model.features=8 --set model.hidden=8 --set model.heads=2 --set model.blocks=1 \
        --set model.reinject=[0] --set model.checkpointing=false \
        --set data.train.duration_s=1 --set data.valid.duration_s=1 --set data.valid.items=8 \
        --set data.train.enroll_s=1 --set data.valid.enroll_s=1 \
        --set data.train.target_absent_from=20 --set train.steps=40 --set train.warmup=5 \
        --set train.lr=1e-2 --set train.validate_every=20 --set train.accumulate=1 \
        --set train.autocast=none --set train.workers=0 "$@"
    [ -z "${V1:-}" ] || set -- --set train.gan.from_step=30 --set train.gan.alone_steps=2 \
        --set train.gan.ramp_steps=5 --set train.gan.shrink=8 "$@"
fi

sepcli train "$config" -o out "$begin" --fail-under "$goal" "$@"

# score NAME OPTIONS-OF-MIX...: how the model does with speakers not trained with.
score() {
    name=$1
    shift
    [ -z "$data" ] || set -- --speech "out/$tested.h5" --noise "out/$tested.h5" \
        --rir "out/$tested.h5" "$@"
    sepcli mix -q -n "$items" --duration "$seconds" --sample-rate 48000 --snr -5:15 --seed 7 \
        --enroll --target-absent 0.2 "$@" |
        sepcli extract -q -m out/best.safetensors - |
        sepcli eval -q - -o "out/$name.json"
}
rm -f out/one.json out/three.json
score one --interferers 1 --rir-prob 0
score three --interferers 1:3
python3 ../card.py out 'one interferer, dry=out/one.json' \
    '1 to 3 interferers=out/three.json' >out/card.md
cat >>out/card.md <<'END'

Published, with other recordings: v1 SI-SDRi 4.01 dB, SI-SDR -1.87 dB, PESQ 1.15, STOI 0.488,
suppression 11.2 dB; v2 SI-SDRi 4.18 dB, SI-SDR -1.71 dB, PESQ 1.14, STOI 0.489, suppression 11.4 dB.
END
cat out/card.md
