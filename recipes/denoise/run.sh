#!/bin/sh
# Noise suppression at 16 kHz in 16 ms hops: band_lstm, 976,410 parameters, on batches that are made
# where the training is; about an hour and a half on one CPU core that computes in bfloat16. The
# third generation of denoise was trained with these losses and this distribution, but did not begin
# from nothing: see recipes/TRIALS.md.
# ULUNAS=ulunas_stream_simple.onnx: in the end the network of UL-UNAS stands beside it, see start.py
# and both.py: unas_lstm, 998,377 parameters. LSTM=MODEL: a band_lstm to take in place of training
# one. What denoise and UL-UNAS give together, in seconds: LSTM=denoise.safetensors of this package.
# DATA=FOLDER: recordings in FOLDER/{train,valid}/{speech,noise,rir}, and in FOLDER/test if there are
# any to score with that choose nothing; they are packed first. Else everything is made up.
# SMOKE=1: a tiny model and short items, half a minute.
# Run again, it resumes where it was stopped; only smoke tests start again.
# Settings may follow, e.g. run.sh --device cuda --set train.batch=64
# out/card.md has the scores, out/best.safetensors (with ULUNAS out/denoise.safetensors) is the model,
# out/*.h5 are the packs: all that another machine needs, with DATA=out there.
set -eu

goal=improvement_db=5 items=100 seconds=4
data=${DATA:+$(cd "$DATA" && pwd)}
ulunas=${ULUNAS:+$(cd "$(dirname "$ULUNAS")" && pwd)/$(basename "$ULUNAS")}
model=${LSTM:+$(cd "$(dirname "$LSTM")" && pwd)/$(basename "$LSTM")}
cd "$(dirname "$0")"
. ../common.sh
mkdir -p out
form=${SMOKE:+smoke}${data:+data}
begin_or_resume "${form:-made}"

tested=valid
if [ -n "$data" ]; then
    pack_parts "$data" 16000
    for part in train valid; do
        for kind in speech noise rir; do
            set -- --set "data.$part.$kind=out/$part.h5" "$@"
        done
    done
fi
if [ -n "${SMOKE:-}" ]; then
    goal=loss_drop=0.2 items=4 seconds=1
    set -- --set model.channels=8 --set model.hidden=8 --set model.layers=1 \
        --set model.full_width=48 --set model.full_hidden=24 --set model.full_repeats=1 \
        --set data.train.speech_minutes=1 --set data.train.noise_minutes=1 \
        --set data.train.rooms=5 --set data.train.duration_s=1 --set data.train.excerpt_s=2 \
        --set data.valid.duration_s=1 --set data.valid.items=16 --set train.steps=60 \
        --set train.validate_every=30 --set train.batch=8 --set train.warmup=10 \
        --set train.autocast=none "$@"
fi

if [ -z "$model" ]; then
    sepcli train config.yaml -o out "$begin" --fail-under "$goal" "$@"
    model=out/best.safetensors
fi

# mixtures PART COUNT OPTIONS-OF-MIX...: of recordings of a part, as a stream.
mixtures() {
    part=$1 count=$2
    shift 2
    [ -z "$data" ] || set -- --speech "out/$part.h5" --noise "out/$part.h5" \
        --rir "out/$part.h5" "$@"
    sepcli mix -q -n "$count" --duration "$seconds" --snr -5:15 "$@"
}
if [ -n "$ulunas" ]; then
    python3 start.py "$ulunas" out/ulunas.safetensors
    python3 compare.py "$ulunas" out/ulunas.safetensors
    rm -rf out/heard
    mixtures train 64 --seed 5 -o out/heard
    python3 both.py "$model" out/ulunas.safetensors out/denoise.safetensors out/heard/*/mix.wav
    model=out/denoise.safetensors
fi

# score NAME OPTIONS-OF-MIX...: how the model does on mixtures of recordings not trained with.
score() {
    name=$1
    shift
    mixtures "$tested" "$items" --seed 7 "$@" |
        sepcli separate -q -m "$model" - |
        sepcli eval -q - --metrics si-sdri,pesq,stoi -o "out/$name.json"
}
rm -f out/dry.json out/rooms.json out/soft.json
score dry --rir-prob 0
score rooms --rir-prob 1
score soft --rir-prob 0 --level -60
python3 ../card.py out '-5 to 15 dB=out/dry.json' 'in rooms, target in its room=out/rooms.json' \
    'speech of -60 dBFS=out/soft.json' >out/card.md
cat out/card.md
