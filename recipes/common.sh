# What several recipes do alike. A run.sh reads this in its own folder: . ../common.sh

# begin_or_resume FORM: sets `begin` to --resume where out/ holds a training of this form, else to
# --overwrite. A training of another form is an error, unless it was a smoke test.
begin_or_resume() {
    before=$(cat out/form 2>/dev/null || echo none)
    case $before in
    "$1" | none | smoke* | *smoke) ;;
    *)
        echo "run.sh: out/ holds a training of another form ($before); move it away" >&2
        exit 1
        ;;
    esac
    begin=--overwrite
    if [ "$before" = "$1" ] && [ -z "${SMOKE:-}" ] && [ -e out/metrics.jsonl ]; then
        begin=--resume
    fi
    echo "$1" >out/form
}

# pack_parts FOLDER RATE: packs the recordings in FOLDER/{train,valid,test}, or takes the packs that
# are there, as out/PART.h5; sets `tested` to the part that is to be scored.
pack_parts() {
    for part in train valid test; do
        if [ -e "$1/$part.h5" ]; then
            [ "$1" -ef out ] || ln -sf "$1/$part.h5" out/
        elif [ -d "$1/$part" ]; then
            sepcli pack -q --speech "$1/$part/speech" --noise "$1/$part/noise" \
                --rir "$1/$part/rir" --sample-rate "$2" --val-fraction 0 \
                -o "out/$part.h5" --skip-existing
        fi
    done
    [ ! -e out/test.h5 ] || tested=test
}

# mixtures_as_songs: speech and noise of the 16 mixtures in out/made become the vocals and the
# accompaniment of songs in out/songs/{train,valid,test}.
mixtures_as_songs() {
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
}

# songs_or_made SONGS: out/songs is the folder SONGS, or where that is "" songs made of 16
# mixtures.
songs_or_made() {
    rm -rf out/songs
    if [ -n "$1" ]; then
        ln -s "$1" out/songs
    else
        sepcli mix -n 16 --sample-rate 44100 --duration "$([ -n "${SMOKE:-}" ] && echo 4 || echo 30)" \
            --snr -8:2 -o out/made --skip-existing
        mixtures_as_songs
    fi
}
