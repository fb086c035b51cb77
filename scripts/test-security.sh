#!/usr/bin/env bash
# The suites about trust alone: attacks by ordinary roles, by servers and by forged rows, rights, types, bound queries;
# and pgspot over the installed SQL.
# shellcheck source=scripts/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
failed=0
"$ROOT/scripts/test.sh" hostile_servers \
  sql::security:: sql::rights:: sql::types:: sql::bound:: sql::memo_forged:: || failed=1
"$ROOT/scripts/pgspot.sh"
exit $failed
