#!/bin/sh
# Vocals and accompaniment at 16 kHz, causal: a Conv-TasNet of 250,469 parameters is trained on songs,
# streamed, quantised to 8 bits and fine-tuned with them, exported for ONNX Runtime, and checked layer
# by layer against what a MAX78000 can run; the test songs are scored in floating point and in 8 bits.
# DATA=FOLDER: FOLDER/{train,valid} and, if there is one, FOLDER/test; each has SONG/STEM.wav, or
# vocals/ and accomp/ with recordings of any names. Else speech and noise are made up in their place.
# CHIP=1: chip.yaml, a network that the MAX78000 can run, and the files for Analog Devices' tools.
# TUNING=N: steps of fine-tuning in 8 bits, 20,000 unless told otherwise.
# SMOKE=1: a small network and short items, a minute at most.
# Settings of both trainings may follow, e.g. run.sh --threads 2 --set train.steps=2000
set -eu

tuning=${TUNING:-20000} minutes=15 items=50 seconds=10 # of fine-tuning, of calibration, of the table
goal=si_sdr_db=5 engine=auto changes=', pitch, stretch'
config=${CHIP:+chip.yaml}
config=${config:-config.yaml}
songs=${DATA:+$(cd "$DATA" && pwd)}
cd "$(dirname "$0")"

if [ -n "${SMOKE:-}" ]; then
    changes= engine=torch tuning=10 minutes=0.2 items=4 seconds=2 goal=loss_drop=0.1
    set -- --set data.train.duration_s=0.5 --set data.valid.duration_s=1 \
        --set data.valid.items=8 --set train.steps=40 \
        --set train.validate_every=20 --set train.warmup=10 --set train.workers=0 "$@"
    if [ -n "${CHIP:-}" ]; then
        set -- --set model.hidden=48 --set 'model.dilations=[1, 2, 4, 8]' "$@"
    else
        set -- --set model.blocks=3 --set model.repeats=1 "$@"
    fi
fi

rm -rf out/songs
mkdir -p out
if [ -n "$songs" ]; then
    ln -s "$songs" out/songs
else
    rm -rf out/made
    sepcli mix -q -n 16 --duration "$([ -n "${SMOKE:-}" ] && echo 3 || echo 30)" --snr -5:5 \
        -o out/made
    for sample in out/made/*/; do
        case $sample in
        */00000[0-9]/) part=train ;;
        *) part=valid ;;
        esac
        mkdir -p "out/songs/$part/vocals" "out/songs/$part/accomp"
        cp -p "$sample/ref.speech.wav" "out/songs/$part/vocals/$(basename "$sample").wav"
        cp -p "$sample/ref.noise.wav" "out/songs/$part/accomp/$(basename "$sample").wav"
    done
fi
test=out/songs/valid remix=
[ ! -d out/songs/test ] || test=out/songs/test
if [ -d "$test/vocals" ]; then # recordings whose names need not belong together
    remix=1
    set -- --set "data.train.augment=[remix, gain-db$changes]" \
        --set 'data.valid.augment=[remix]' "$@"
fi

sepcli train "$config" -o out/float --overwrite --fail-under "$goal" "$@"
sepcli mix -q --stems "$test" --targets vocals,accompaniment ${remix:+--augment remix} --downmix \
    --min-rms -50 --sample-rate 16000 --duration "$seconds" -n "$items" --seed 7 -o out/mixtures.tar \
    --overwrite
sepcli mix -q --stems "$test" --targets vocals,accompaniment ${remix:+--augment remix} --downmix \
    --min-rms -50 --sample-rate 16000 --duration "$seconds" -n 1 --seed 8 -o out/one --overwrite
sepcli stream --engine "$engine" -m out/float --verify out/one/000000/mix.wav

if [ -n "${CHIP:-}" ]; then
    quantised=out/chip.safetensors engine=torch # in a graph some integer is the one beside it
    set -- --target max78000 "$@"
else
    quantised=out/int8.safetensors
    set -- --target cpu "$@"
fi
sepcli quantize out/float -o "$quantised" --overwrite --mode qat -c "$config" "$@" \
    --set train.warmup=0 --calib-minutes "$minutes" --steps "$tuning" --lr 1e-4 --max-drop 0.5 --budget 442368
sepcli stream --engine "$engine" -m "$quantised" --verify out/one/000000/mix.wav
if [ -n "${CHIP:-}" ]; then
    sepcli export-max78000 "$quantised" -o out/export --overwrite
else # says what the chip cannot do, and exits with 1 for that
    sepcli export-max78000 out/float --check >out/chip.md || [ $? -eq 1 ]
    tail -n 5 out/chip.md
fi

for model in out/float "$quantised"; do
    echo "$model"
    sepcli separate -q -m "$model" out/mixtures.tar -o - |
        sepcli eval -q - --metrics si-sdr,si-sdri,sdr -o out/scores.md
    cat out/scores.md
done
cp out/float/scores.json out/scores.json
