#!/bin/sh
# Writes docker/requirements/*.txt: every package of the images, with version and hashes (`make lock`).
#
# The versions are those of constraints.txt, which the tests run with. TORCH_INDEX is the index, or the folder, that has
# PyTorch's wheel for CPUs.
set -eu
cd "$(dirname "$0")/.."
uv=${UV:-uv}
torch=${TORCH_INDEX:-https://download.pytorch.org/whl/cpu}
folder=docker/requirements

# Where wheels come from is the business of whoever builds: no address of an index gets into the files.
compile() {
    "$uv" pip compile --quiet --no-header --no-annotate --no-emit-index-url --no-emit-find-links \
        --generate-hashes --constraint constraints.txt --python-platform x86_64-manylinux_2_35 "$@" > /dev/null
}

case $torch in
    *://*) from="--index-strategy unsafe-best-match --index $torch" ;;
    *) from="--find-links $torch" ;;
esac

compile --python-version 3.11 --output-file $folder/client.txt pyproject.toml
# shellcheck disable=SC2086  # two words each
compile --python-version 3.11 --output-file $folder/cpu.txt $from --override $folder/cpu.in \
    --extra serve --extra text --extra traces pyproject.toml
compile --python-version 3.12 --output-file $folder/cuda.txt --extra serve --extra text --extra traces pyproject.toml
compile --python-version 3.11 --output-file $folder/triton.txt --no-deps $folder/triton.in
compile --python-version 3.11 --output-file $folder/build.txt $folder/build.in
