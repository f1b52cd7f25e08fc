#!/bin/sh
# Open-Unmix learns to tell vocals from accompaniment; the test songs are separated by the models
# after 25, 50 and 150 epochs, with the mixture's phase and with that of Griffin-Lim, and scored as
# in the literature; out/report-*.html has all scores and what the songs sound like.
# MUSDB=FOLDER: songs in FOLDER/{train,valid,test}/SONG/STEM.wav, as data-prepare.sh leaves them;
# else speech and noise are made up in place of songs.
# SMOKE=1: a tiny model and short songs, half a minute.
# Settings may follow, e.g. run.sh --device cuda --set train.workers=8
set -eu

epochs='25 50 150'
if [ -n "${SMOKE:-}" ]; then
    epochs='1 2'
    set -- --set train.epochs=2 --set 'train.keep_epochs=[1, 2]' --set model.hidden=16 \
        --set model.layers=1 --set data.train.items=16 --set data.train.duration_s=1 \
        --set data.valid.duration_s=2 --set train.batch=2 --set train.lr=3e-3 \
        --set train.workers=0 --fail-under loss_drop=0.1 "$@"
fi

songs=${MUSDB:+$(cd "$MUSDB" && pwd)}
cd "$(dirname "$0")"
mkdir -p out
rm -rf out/songs
if [ -n "$songs" ]; then
    ln -s "$songs" out/songs
else
    seconds=$([ -n "${SMOKE:-}" ] && echo 4 || echo 30)
    sepcli mix -n 16 --sample-rate 44100 --duration "$seconds" --snr -8:2 -o out/made --overwrite
    for sample in out/made/*/; do
        case $sample in
            */00000[0-9]/) part=train ;;
            */00001[0-2]/) part=valid ;;
            *) part=test ;;
        esac
        song=out/songs/$part/$(basename "$sample")
        mkdir -p "$song"
        cp "$sample/ref.speech.wav" "$song/vocals.wav"
        cp "$sample/ref.noise.wav" "$song/accompaniment.wav"
        cp "$sample/mix.wav" "$song/mixture.wav"
    done
    set -- --set model.channels=1 --set data.train.downmix=true --set data.valid.downmix=true \
        --set data.train.items=640 --set data.valid.items=3 "$@"
fi

sepcli train config.yaml -o out --overwrite "$@"

# The score of one of the two, out of the table of sepcli eval.
median() {
    sed -n "s/^| $1 | median of median | *\([-0-9.]*\) |\$/\1/p" out/median.md
}

{
    echo '| epochs | phase | vocals SDR, dB | accompaniment SDR, dB |'
    echo '|---|---|--:|--:|'
    for epoch in $epochs; do
        for phase in mixture griffin-lim; do
            flag=$([ "$phase" = mixture ] || echo --griffin-lim)
            report=out/report-$epoch-$phase.html
            sepcli separate -q -m "out/epoch-$epoch.safetensors" $flag out/songs/test \
                --target vocals --target accompaniment |
                sepcli eval -q - --median-of-median --metrics sdr --html "$report" \
                    -o out/median.md
            echo "| $epoch | $phase | $(median vocals) | $(median accompaniment) |"
        done
    done
    for published in 'UMX | 6.32' 'UMXHQ | 6.25' 'UMX-L | 7.21'; do
        echo "| published: ${published% | *} | mixture, Wiener filter | ${published#* | } | |"
    done
} | tee out/table.md
