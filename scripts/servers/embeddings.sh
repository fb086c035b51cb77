#!/usr/bin/env bash
# A throw-away server of embeddings for tests, on a free port of 127.0.0.1: OpenAI's protocol in front
# of all-MiniLM-L6-v2 (scripts/servers/embeddings/server.py says what it can be told).
#   embeddings.sh setup         fetch what it needs into .tools/ (start does too)
#   embeddings.sh start DIR [OPTION...]
#                               start it, and print its url. --counting (vectors of a hash, without the
#                               model), --api-key KEY, --port PORT, --while PID (no longer than it)
#   embeddings.sh stop DIR      stop it
# shellcheck source=scripts/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/../common.sh"
name=embeddings fetched="the model"
# shellcheck source=scripts/servers/python.sh
. "$ROOT/scripts/servers/python.sh"

usage() { sed -n '2,8s/^# //p' "${BASH_SOURCE[0]}" >&2; exit 2; }

# A model is large, and a hash needs none.
start() {
  case " $* " in *" --counting "*) ;; *) setup ;; esac
  launch "$@"
}

serve "$@"
