#!/bin/sh
# Training data out of ordinary Debian packages, with their licences beside it.
#
#     sh recipes/data-debian.sh DIR             # all packages: 2.2 GB are fetched, 0.6 GB stay
#     sh recipes/data-debian.sh DIR PACKAGE...  # only these
#
# makes DIR/speech/SPEAKER, DIR/noise/PACKAGE, DIR/music/PACKAGE and DIR/stems/SONG of the packages'
# own files, DIR/LICENSES/PACKAGE, and DIR/MANIFEST (path, package, version). Nothing is installed,
# nobody need be root. A package is there as a whole or not yet; run it again to get what is missing.
set -eu

known="fillets-ng-data-cs fillets-ng-data-nl klettres-data
    asterisk-core-sounds-en-g722 asterisk-core-sounds-es-g722 asterisk-core-sounds-fr-g722
    asterisk-core-sounds-it-g722 asterisk-core-sounds-ru-g722
    sonic-pi-samples tuxpaint-stamps-default supertuxkart-data lincity-ng-data torcs-data
    wesnoth-data widelands-data unknown-horizons
    asterisk-moh-opsound-g722 fretsonfire-songs-muldjord"

say() {
    echo "data-debian.sh: $*" >&2
}

fail() {
    say "$@"
    exit 1
}

# choose PACKAGE: stage its recordings. Voices and jingles are left out of the noises by name.
choose() {
    case $1 in
    fillets-ng-data-*) # the two fish, m and v, with one actor each; two files have no sound in them
        for voice in m v; do
            take "speech/fillets-${1##*-}-$voice" usr/share/games/fillets-ng/sound \
                -name "*-$voice-*.ogg" ! -name zd1-m-cesta.ogg ! -name zav-v-sto.ogg
        done
        ;;
    klettres-data) # a voice per language, but uk, nb and en_GB; ar and ml lack the last Ogg page
        for language in "$unpacked"/usr/share/klettres/*/alpha; do
            language=$(basename "${language%/alpha}")
            case $language in uk | nb | en_GB | ar | ml) continue ;; esac
            take "speech/klettres-$language" "usr/share/klettres/$language" -name '*.ogg'
        done
        ;;
    asterisk-core-sounds-*)
        for speaker in "$unpacked"/usr/share/asterisk/sounds/*_*_*_*/; do
            speaker=$(basename "$speaker")
            take "speech/asterisk-$speaker" "usr/share/asterisk/sounds/$speaker" -name '*.g722' \
                ! -path '*/silence/*' ! -name '*beep*' ! -name '*-2tone*' ! -name 'tt-*' \
                ! -name 'confbridge-join.*' ! -name 'confbridge-leave.*'
        done
        ;;
    sonic-pi-samples)
        take "noise/$1" usr/share/sonic-pi/samples -name '*.flac' \
            ! -name 'ambi_choir*' ! -name 'bass_voxy*' ! -name 'misc_burp*'
        ;;
    tuxpaint-stamps-default) # four of the animals are silent
        take "noise/$1" usr/share/tuxpaint/stamps -name '*.ogg' ! -name '*_desc*' \
            \( -path './animals/*' -o -path './household/*' -o -path './vehicles/*' \
            -o -path './naturalforces/*' -o -path '*/percussion/*' -o -path '*/newyears/*' \
            -o -name 'camera*' \) ! -name nandou.ogg ! -name iguana.ogg ! -name giraffe.ogg \
            ! -name wombat.ogg
        ;;
    supertuxkart-data)
        take "noise/$1" usr/share/games/supertuxkart/data/sfx -name '*.ogg' \
            ! -name 'sara_airport*' ! -name 'Wilhelm*' ! -name 'ugh*' ! -name 'wee*' \
            ! -name '*fanfare*' ! -name '*victory*' ! -name 'gp_end*' ! -name 'track_intro*'
        take "music/$1" usr/share/games/supertuxkart/data/music -name '*.ogg'
        ;;
    lincity-ng-data)
        take "noise/$1" usr/share/games/lincity-ng/sounds -name '*.wav'
        ;;
    torcs-data)
        take "noise/$1" usr/share/games/torcs/data/sound -name '*.wav' \
            ! -name locked.wav # which is no WAV
        ;;
    wesnoth-*-data)
        take "noise/$1" "usr/share/games/wesnoth/$(echo "$1" | cut -d- -f2)/data/core/sounds" \
            -name '*.ogg' ! -name 'human*' ! -name 'dwarf*' ! -name 'elf*' ! -name 'goblin*' \
            ! -name 'orc*' ! -name 'ogre*' ! -name 'troll*' ! -name 'zombie*' ! -name 'lich*' \
            ! -name 'mer*' ! -name 'naga*'
        ;;
    widelands-data)
        take "noise/$1" usr/share/games/widelands/data/sound -name '*.ogg'
        take "music/$1" usr/share/games/widelands/data/music -name '*.ogg'
        ;;
    unknown-horizons)
        take "noise/$1" usr/share/unknown-horizons/content/audio/sounds -name '*.ogg' \
            ! -path './events/*'
        take "music/$1" usr/share/unknown-horizons/content/audio/music -name '*.ogg'
        ;;
    asterisk-moh-opsound-g722)
        take "music/$1" usr/share/asterisk/moh -name '*.g722'
        ;;
    fretsonfire-songs-muldjord) # internal_degeneration has the whole band in both files
        for song in "$unpacked"/usr/share/games/fretsonfire/data/songs/muldjord/*/; do
            song=$(basename "$song")
            [ "$song" != internal_degeneration ] || continue
            take "stems/$song" "usr/share/games/fretsonfire/data/songs/muldjord/$song" \
                -name '*.ogg'
            mv "$stage/stems/$song/song.ogg" "$stage/stems/$song/rest.ogg"
        done
        ;;
    esac
}

# take FOLDER PLACE TEST...: stage in FOLDER the files below PLACE that pass find's tests, each named
# by its path, with - for /.
take() {
    folder=$stage/$1 place=$unpacked/$2
    shift 2
    [ -d "$place" ] || fail "$package $version: has no ${place#"$unpacked"/}; this knows other versions"
    mkdir -p "$folder"
    (cd "$place" && find . -type f -size +0 "$@") | sed 's|^\./||; p; s|/|-|g' |
        while IFS= read -r file && IFS= read -r name; do
            mv "$place/$file" "$folder/$name"
        done
    rmdir "$folder" 2>/dev/null || return 0
    fail "$package $version: no recordings in ${place#"$unpacked"/}; this knows other versions"
}

# Telephone recordings become FLAC: libsndfile does not read G.722.
decode() {
    find "$stage" -name '*.g722' | while IFS= read -r file; do
        ffmpeg -nostdin -v error -f g722 -i "$file" -c:a flac "${file%.g722}.flac"
        rm "$file"
    done
}

# Move what is staged to its place, folder by folder, and list it last: what is listed is complete.
publish() {
    mkdir -p "$dir/LICENSES"
    mv "$unpacked/usr/share/doc/$package/copyright" "$dir/LICENSES/$package"
    (cd "$stage" && find . -type f) | sed 's|^\./||' |
        awk -v OFS='\t' -v package="$package" -v version="$version" '{print $0, package, version}' \
            >"$work/rows"
    for folder in "$stage"/*/*; do
        target=$dir/${folder#"$stage"/}
        mkdir -p "$(dirname "$target")"
        rm -rf "$target"
        mv "$folder" "$target"
    done
    touch "$dir/MANIFEST"
    cat "$dir/MANIFEST" "$work/rows" | sort >"$work/MANIFEST"
    mv "$work/MANIFEST" "$dir/MANIFEST"
}

is_done() {
    [ -f "$dir/MANIFEST" ] && cut -f 2 "$dir/MANIFEST" | grep -Fqx "$1"
}

fetch() {
    (cd "$work" && apt-get -qq download "$1" >apt.log 2>&1) && return
    say "$1: $(grep '^E:' "$work/apt.log" | head -n 1)"
    return 1
}

prepare() {
    version=$(dpkg-deb -f "$work"/*.deb Version)
    dpkg-deb -x "$work"/*.deb "$unpacked"
    choose "$package"
    decode
    count=$(find "$stage" -type f | wc -l)
    publish
    say "$package $version: $((count)) files"
}

[ $# -gt 0 ] && [ -n "$1" ] || {
    echo "usage: sh $0 DIR [PACKAGE...]" >&2
    exit 2
}
for tool in apt-get apt-cache dpkg-deb; do
    command -v $tool >/dev/null || fail "no $tool here; run this on Debian or its relatives"
done
mkdir -p "$1"
dir=$(cd "$1" && pwd)
shift
known=$(echo $known) # on one line
[ $# -gt 0 ] || set -- $known
for package; do
    case " $known " in *" $package "*) ;; *) fail "$package: not known here; choose from $known" ;; esac
done
[ -n "$(apt-cache pkgnames fillets-ng-data)" ] ||
    fail "apt has no package lists; run: sudo apt-get update"

LC_ALL=C # sort and awk by bytes, and messages in English
export LC_ALL
work=$dir/.part unpacked=$dir/.part/unpacked stage=$dir/.part/stage
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

status=0 without=
for package; do
    case $package in wesnoth-data) # has its version in its name
        package=$(apt-cache pkgnames wesnoth-1 | grep -x 'wesnoth-[0-9.]*-data' | sort | tail -n 1)
        [ -n "$package" ] || package=wesnoth-1.16-data ;;
    esac
    is_done "$package" && continue
    case $package in *-g722)
        command -v ffmpeg >/dev/null || { without="$without $package"; continue; } ;;
    esac
    rm -rf "$work"
    mkdir -p "$unpacked" "$stage"
    if fetch "$package"; then prepare; else status=1; fi
done
[ -z "$without" ] || say "no ffmpeg to decode G.722, so without$without; install it and run again"
exit $status
