#!/bin/sh
# Target-speaker extraction at 16 kHz in 16 ms hops: speaker_lstm, 1,913,259 parameters, on batches
# that are made where the training is; two and a half hours of a CPU core with bfloat16.
# DATA=FOLDER: recordings in FOLDER/{train,valid}/{speech/SPEAKER,noise,rir}, and in FOLDER/test* if
# there are any to score with that choose nothing. Else everything is made up.
# TEACHER=pretrained.pt: what the speaker encoder learns from first, see encoder.py. Else it is
# trained with the rest.
# SMOKE=1: a tiny model, short items of one speaker in noise, half a minute.
# Run again, it resumes where it was stopped; only smoke tests start again.
# Settings may follow, e.g. run.sh --device cuda --set train.batch=64
# out/card.md has the scores, out/extract.safetensors is the model.
set -eu

goal=improvement_db=3 items=100 seconds=4 more=
data=${DATA:+$(cd "$DATA" && pwd)}
teacher=${TEACHER:+$(cd "$(dirname "$TEACHER")" && pwd)/$(basename "$TEACHER")}
cd "$(dirname "$0")"
. ../common.sh
mkdir -p out
form=${SMOKE:+smoke}${data:+data}
begin_or_resume "${form:-made}"

tests=
if [ -n "$data" ]; then
    for part in train valid; do
        for kind in speech noise rir; do
            [ $kind = rir ] && [ ! -e "$data/$part/rir" ] ||
                set -- --set "data.$part.$kind=$data/$part/$kind" "$@"
        done
    done
    tests=$(cd "$data" && ls -d test* 2>/dev/null || echo valid)
fi
if [ -n "$teacher" ] && [ -n "$data" ]; then
    [ -e out/encoder.safetensors ] || python3 encoder.py "$data/train/speech" \
        "$data/train/noise" "$teacher" out/encoder.safetensors
    [ "$begin" = --resume ] || set -- --init out/encoder.safetensors "$@"
else
    set -- --set model.learn_encoder=true "$@"
fi
if [ -n "${SMOKE:-}" ]; then
    goal=improvement_db=0.5 items=4 seconds=1 more=10
    set -- --set model.width=32 --set model.hidden=24 --set model.layers=2 \
        --set model.embedding=16 --set model.bottleneck=8 \
        --set model.encoder_channels=16 --set model.encoder_blocks=2 \
        --set data.train.speech_minutes=4 --set data.train.noise_minutes=1 \
        --set data.train.rooms=5 --set data.train.duration_s=1 --set data.train.enroll_s=1 \
        --set data.train.excerpt_s=2 --set data.valid.duration_s=1 --set data.valid.enroll_s=1 \
        --set data.valid.speech_minutes=4 --set data.valid.noise_minutes=1 \
        --set data.valid.excerpt_s=2 --set data.valid.items=16 --set train.steps=60 \
        --set train.validate_every=20 --set train.batch=8 --set train.warmup=10 \
        --set train.autocast=none --set train.lr=6e-3 --set train.ema=0.9 \
        --set data.train.interferers=0:0 --set data.valid.interferers=0:0 \
        --set data.train.noise_prob=1 --set data.valid.noise_prob=1 \
        --set data.train.target_absent=0 --set data.train.snr_db=-5:5 \
        --set data.valid.snr_db=-5:5 "$@"
fi

sepcli train config.yaml -o out "$begin" --fail-under "$goal" "$@"

# further NAME START DROPOUT STEPS LR SEED OPTIONS...: trains on from START, with voices at more speeds
# and of other frequency responses.
further() {
    name=$1 start=$2 dropout=$3 steps=$4 lr=$5 seed=$6
    shift 6
    again=--overwrite
    [ "$begin" = --overwrite ] || [ ! -e "out/$name/metrics.jsonl" ] || again=--resume
    [ "$again" = --resume ] || set -- "$@" --init "$start.safetensors"
    sepcli train config.yaml -o "out/$name" "$again" "$@" --set model.dropout="$dropout" \
        --set data.train.speed=0.78:1.28 --set data.train.speed_prob=0.85 \
        --set data.train.equaliser_db=4 --set data.train.equaliser_prob=0.5 \
        --set data.train.varying_db=3 --set data.train.varying_prob=0.3 \
        --set data.train.seed="$seed" --set train.steps="${more:-$steps}" --set train.lr="$lr"
}
further second out/best 0.1 10500 2e-3 3 "$@"
further third out/second/last 0.02 1600 6e-4 4 "$@"
further fourth out/third/last 0.02 2600 9e-4 5 "$@"
python3 ../average.py out/extract.safetensors out/fourth/last.safetensors=1 # in 16-bit floats

# score NAME OPTIONS-OF-MIX...: how the model does on mixtures of speakers not trained with.
reports=
score() {
    name=$1
    shift
    sepcli mix -q -n "$items" --duration "$seconds" --interferers 1 --sir -5:5 --enroll \
        --seed 7 "$@" | sepcli extract -q -m out/extract.safetensors - |
        sepcli eval -q - -o "out/$name.json"
}
for part in ${tests:-made}; do
    set --
    [ -z "$data" ] || set -- --speech "$data/$part/speech" --noise "$data/$part/noise"
    score "$part-clean" --snr 60 "$@"
    score "$part-noise" --snr 0:15 "$@"
    score "$part-absent" --snr 0:15 --target-absent 1 "$@"
    for kind in clean noise absent; do
        reports="$reports $part-$kind=out/$part-$kind.json"
    done
done
python3 ../card.py out $reports >out/card.md
cat out/card.md
