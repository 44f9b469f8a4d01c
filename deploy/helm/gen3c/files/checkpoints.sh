#!/bin/sh
# Downloads the released weights and converts them, once: what is there is left as it is. Run in the exporter's image.
#
# GEN3C_CHECKPOINTS  the folder to make
# PUBLISHED          where downloads are kept until they are converted, on the same volume
# TRANSFORMER, TOKENIZER, VGGT and the same with _REVISION: repositories; without VGGT it is left out
# PRESET             sizes that the files must have
set -eu

# This is the container's first process, which a signal without a trap does not reach, and a trap waits for what runs in
# the foreground: so what takes long runs in the background, and is told.
child=
stop() {
    trap "" TERM
    [ -z "$child" ] || { kill "$child" && wait "$child"; } 2> /dev/null || :
    exit 143
}
trap stop TERM
run() {
    "$@" &
    child=$!
    wait "$child"
    child=
}

mkdir -p "$PUBLISHED"
# Pods that share the volume wait for the one that is at it.
exec 9> "$PUBLISHED/lock"
run flock 9

if [ ! -e "$GEN3C_CHECKPOINTS/manifest.json" ]; then
    run hf download "$TRANSFORMER" model.pt --revision "$TRANSFORMER_REVISION" --local-dir "$PUBLISHED/transformer"
    run hf download "$TOKENIZER" encoder.jit decoder.jit mean_std.pt --revision "$TOKENIZER_REVISION" \
        --local-dir "$PUBLISHED/tokenizer"
    run gen3c-export convert --dit "$PUBLISHED/transformer/model.pt" --tokenizer "$PUBLISHED/tokenizer" \
        --preset "$PRESET" --output "$GEN3C_CHECKPOINTS"
    rm -r "$PUBLISHED/transformer" "$PUBLISHED/tokenizer"
fi

if [ -n "${VGGT:-}" ] && [ ! -e "$GEN3C_CHECKPOINTS/vggt/model.safetensors" ]; then
    run hf download "$VGGT" model.safetensors --revision "$VGGT_REVISION" --local-dir "$PUBLISHED/vggt"
    mkdir -p "$GEN3C_CHECKPOINTS/vggt"
    mv "$PUBLISHED/vggt/model.safetensors" "$GEN3C_CHECKPOINTS/vggt/"
    rm -r "$PUBLISHED/vggt"
fi
