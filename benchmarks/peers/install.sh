#!/usr/bin/env bash
# Build the environment of one tool, with the versions that were compared:
#   bash benchmarks/peers/install.sh nnunet|stardist|cellpose|biapy FOLDER
set -euo pipefail
tool=$1 folder=$2
case "$tool" in
    nnunet) packages=(nnunetv2==2.8.1) ;;
    stardist) packages=(stardist==0.9.2 tensorflow-cpu==2.21.0) ;;
    cellpose) packages=(cellpose==3.1.1.3) ;; # version 4 has pretrained transformers alone
    biapy) packages=(biapy==3.7.1 torchvision==0.28.0) ;;
    *) echo "no such tool: $tool" >&2; exit 2 ;;
esac
python3 -m venv "$folder"
echo torch==2.13.0 > "$folder/constraints.txt" # that of medseg, in the same build
"$folder/bin/pip" install --quiet -c "$folder/constraints.txt" "${packages[@]}"
"$folder/bin/pip" freeze > "$folder/versions.txt"
