#!/usr/bin/env bash
# Erases a batch on this machine: on its GPUs, or on its CPU cores where there are none.
#
# Needs: advanchor installed (pip install .).
# Run:   launch/local.sh configs/gallery.yaml [OPTION...]      for example -o runs/try --set method.steps=20
#        The same line again goes on where it stopped; Ctrl-C stops it in an orderly way.
# Checked by tests/deployment.
set -euo pipefail

[ $# -gt 0 ] || { echo "usage: $0 BATCH [OPTION...]" >&2; exit 2; }
unset RAY_ADDRESS # a Ray of its own, whatever cluster this shell was used for before
export RAY_AUTH_MODE=token
exec advanchor erase "$@"
