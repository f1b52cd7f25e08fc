#!/bin/sh
# TFSWA-UNet learns to tell vocals from accompaniment; the test songs are separated and scored as in
# the literature, and out/report.html has all scores and what the songs sound like.
# MUSDB=FOLDER: songs in FOLDER/{train,valid,test}/SONG/STEM.wav, as data-prepare.sh leaves them;
# else speech and noise are made up in place of songs.
# FORM=config, or lite (1.2 million parameters, for CPUs), progressive, stems (four at once, with
# MUSDB only), or pretrain: reconstruction alone, whose model another form begins with by --init.
# SMOKE=1: a small network and short songs, a minute or two on an idle CPU core.
# Run again, it resumes where it was stopped; only smoke tests start again.
# Settings may follow, e.g. run.sh --device cuda --set train.batch=16
set -eu

form=${FORM:-config}
kind=$form-${MUSDB:+musdb}${SMOKE:+smoke}
songs=${MUSDB:+$(cd "$MUSDB" && pwd)}
cd "$(dirname "$0")"
. ../common.sh
mkdir -p out
begin_or_resume "$kind"
[ "$begin" = --resume ] || rm -rf out/made
set -- "$begin" "$@"

if [ -n "${SMOKE:-}" ]; then
    set -- --set model.window=1024 --set model.hop=512 --set 'model.dims=[16, 32]' \
        --set 'model.depths=[1, 1]' --set 'model.patch=[1, 16]' --set model.checkpointing=false \
        --set data.train.duration_s=1 --set data.train.items=64 --set data.valid.duration_s=2 \
        --set train.epochs=4 --set train.validate_epochs=4 --set train.batch=4 \
        --set train.warmup=0 --set train.lr=3e-3 --set train.autocast=none --set train.workers=0 \
        --set train.log_every=16 "$@"
fi

songs_or_made "$songs"
if [ -z "$songs" ]; then
    set -- --set model.channels=1 --set data.valid.items=3 "$@"
    case $form in
    pretrain) ;;
    *) set -- --set data.train.downmix=true --set data.valid.downmix=true "$@" ;;
    esac
fi

if [ "$form" = pretrain ]; then # then: FORM=config run.sh --init .../pretrain/best.safetensors
    [ -n "$songs" ] || set -- --set data.train.channels=1 --set data.valid.channels=1 "$@"
    sepcli train pretrain.yaml -o out "$@"
    exit
fi

sepcli train "$form.yaml" -o out "$@"

# A shell forgets that the first command of a pipe has failed, so a file remembers.
rm -f out/failed
{
    sepcli separate -q -m out out/songs/test --target vocals || touch out/failed
} | sepcli eval -q - --median-of-median --metrics sdr --html out/report.html -o out/median.md
[ ! -e out/failed ]
cat out/median.md
echo 'Published: vocals 9.16 dB on MUSDB18, by the TFSWA-ResUNet of 44.3 million parameters, not by'
echo 'this network (Yao et al., 2025).'
