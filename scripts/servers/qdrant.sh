#!/usr/bin/env bash
# A throw-away Qdrant for tests, on a free port of 127.0.0.1: its engine for local use behind its
# gRPC protocol (scripts/servers/qdrant/server.py says what that is).
#   qdrant.sh setup             fetch what it needs into .tools/ (start does too)
#   qdrant.sh start DIR [OPTION...]
#                               start it, and print its url; what it has stored in DIR is there again.
#                               --api-key KEY, --tls (trust DIR/ca.pem), --while PID (no longer than it)
#   qdrant.sh stop DIR          stop it; what it has stored stays in DIR
# shellcheck source=scripts/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/../common.sh"
name=qdrant fetched="Qdrant's Python package"
# shellcheck source=scripts/servers/python.sh
. "$ROOT/scripts/servers/python.sh"

usage() { sed -n '2,9s/^# //p' "${BASH_SOURCE[0]}" >&2; exit 2; }

start() { setup; launch "$@"; }

serve "$@"
