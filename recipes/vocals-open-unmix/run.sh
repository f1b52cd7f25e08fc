#!/bin/sh
# Open-Unmix learns to tell vocals from accompaniment; the test songs are separated by the models
# after 25, 50 and 150 epochs, with the mixture's phase and with that of Griffin-Lim, and scored as
# in the literature; out/report-*.html has all scores and what the songs sound like.
# MUSDB=FOLDER: songs in FOLDER/{train,valid,test}/SONG/STEM.wav, as data-prepare.sh leaves them;
# else speech and noise are made up in place of songs.
# EPOCHS='25 50 150': after which epochs models are kept and scored; the last one ends the training.
# SMOKE=1: a tiny model and short songs, half a minute.
# Run again, it goes on where it was stopped, or with more EPOCHS; only smoke tests begin anew.
# Settings may follow, e.g. run.sh --device cuda --set train.workers=8
set -eu

epochs=${EPOCHS:-25 50 150}
form=${MUSDB:+musdb}
form=${SMOKE:+smoke}${form:-made}
if [ -n "${SMOKE:-}" ]; then
    epochs=${EPOCHS:-1 2}
    set -- --set model.hidden=16 --set model.layers=1 --set data.train.items=16 \
        --set data.train.duration_s=1 --set data.valid.duration_s=2 --set train.batch=2 \
        --set train.lr=3e-3 --set train.workers=0 --fail-under loss_drop=0.1 "$@"
fi
epochs=$(echo $epochs) # on one line
set -- --set "train.epochs=${epochs##* }" \
    --set "train.keep_epochs=[$(echo "$epochs" | sed 's/ /, /g')]" "$@"

songs=${MUSDB:+$(cd "$MUSDB" && pwd)}
cd "$(dirname "$0")"
mkdir -p out
before=$(cat out/form 2>/dev/null || echo none)
case $before in
"$form" | none | smoke*) ;;
*)
    echo "run.sh: out/ holds a training of another form ($before); move it away" >&2
    exit 1
    ;;
esac
if [ "$before" = "$form" ] && [ -z "${SMOKE:-}" ] && [ -e out/metrics.jsonl ]; then
    set -- --resume "$@"
else
    rm -rf out/made
    set -- --overwrite "$@"
fi
echo "$form" >out/form

rm -rf out/songs
if [ -n "$songs" ]; then
    ln -s "$songs" out/songs
else
    seconds=$([ -n "${SMOKE:-}" ] && echo 4 || echo 30)
    sepcli mix -n 16 --sample-rate 44100 --duration "$seconds" --snr -8:2 -o out/made \
        --skip-existing
    for sample in out/made/*/; do
        case $sample in
        */00000[0-9]/) part=train ;;
        */00001[0-2]/) part=valid ;;
        *) part=test ;;
        esac
        song=out/songs/$part/$(basename "$sample")
        mkdir -p "$song"
        cp -p "$sample/ref.speech.wav" "$song/vocals.wav"
        cp -p "$sample/ref.noise.wav" "$song/accompaniment.wav"
        cp -p "$sample/mix.wav" "$song/mixture.wav"
    done
    set -- --set model.channels=1 --set data.train.downmix=true --set data.valid.downmix=true \
        --set data.train.items=640 --set data.valid.items=3 "$@"
fi

sepcli train config.yaml -o out "$@"

# score EPOCH PHASE: separate and score the test songs. A shell forgets that the first command of a
# pipe has failed, so a file remembers.
score() {
    rm -f out/failed out/median.md
    {
        sepcli separate -q -m "out/epoch-$1.safetensors" \
            $([ "$2" = mixture ] || echo --griffin-lim) out/songs/test \
            --target vocals --target accompaniment || touch out/failed
    } | sepcli eval -q - --median-of-median --metrics sdr --html "out/report-$1-$2.html" \
        -o out/median.md
    [ ! -e out/failed ]
}

# The score of one of the two, out of the table of sepcli eval; an error where there is none.
median() {
    sed -n "s/^| $1 | median of median | *\([-0-9.]*\) |\$/\1/p" out/median.md | grep .
}

{
    echo '| epochs | phase | vocals SDR, dB | accompaniment SDR, dB |'
    echo '|---|---|--:|--:|'
} >out/table.md
for epoch in $epochs; do
    for phase in mixture griffin-lim; do
        score "$epoch" "$phase"
        vocals=$(median vocals)
        accompaniment=$(median accompaniment)
        echo "| $epoch | $phase | $vocals | $accompaniment |" >>out/table.md
    done
done
for published in 'UMX | 6.32' 'UMXHQ | 6.25' 'UMX-L | 7.21'; do
    echo "| published: ${published% | *} | mixture, Wiener filter | ${published#* | } | |"
done >>out/table.md
cat out/table.md
