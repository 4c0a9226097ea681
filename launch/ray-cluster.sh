#!/usr/bin/env bash
# Erases a batch on a Ray cluster that is already running.
#
# Needs: a machine of that cluster to run this on (its head, say), with advanchor and the batch file; the cluster's token
#        in ~/.ray/auth_token, in the file RAY_AUTH_TOKEN_PATH, or in RAY_AUTH_TOKEN; in the batch, an `output` that
#        every node can write.
# Run:   RAY_ADDRESS=10.0.0.5:6379 launch/ray-cluster.sh batch.yaml [OPTION...]
#        The same line again goes on where it stopped. --set resources.gangs=16 lets an autoscaler add nodes.
# Checked by tests/deployment; cluster/rehearse.py makes a cluster to try it on.
set -euo pipefail

[ $# -gt 0 ] || { echo "usage: $0 BATCH [OPTION...]" >&2; exit 2; }
: "${RAY_ADDRESS:?set it to the host:port of the head}"
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH="${RAY_AUTH_TOKEN_PATH:-$HOME/.ray/auth_token}"
if [ -z "${RAY_AUTH_TOKEN:-}" ]; then
  [ -r "$RAY_AUTH_TOKEN_PATH" ] || { echo "no token: $RAY_AUTH_TOKEN_PATH cannot be read" >&2; exit 2; }
  [ -z "$(find -L "$RAY_AUTH_TOKEN_PATH" -perm /077)" ] || { echo "others can read it: chmod 600 $RAY_AUTH_TOKEN_PATH" >&2; exit 2; }
fi
exec advanchor erase "$@" --address "$RAY_ADDRESS"
