#!/usr/bin/env bash
# grafana.sh FILE: checks a dashboard against the types of Grafana's own schema.
# shellcheck source=scripts/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
# shellcheck source=scripts/npm.sh
. "$ROOT/scripts/npm.sh"
[ $# = 1 ] || { sed -n '2s/^# //p' "${BASH_SOURCE[0]}" >&2; exit 2; }
dashboard=$(realpath "$1")

fetch_packages grafana "Grafana's schema"
{
  cat <<'TS'
import type { Dashboard } from "@grafana/schema";
// What is an enumeration in TypeScript is its text in JSON.
type Plain<T> = T extends string ? `${T}`
  : T extends (infer U)[] ? Plain<U>[]
  : T extends object ? { [K in keyof T]: Plain<T[K]> }
  : T;
export const dashboard = (
TS
  cat "$dashboard"
  echo ') satisfies Plain<Dashboard>;'
} >"$packages/dashboard.ts"
cd "$packages"
exec node_modules/.bin/tsc --noEmit --strict --skipLibCheck --module esnext --moduleResolution bundler \
  --target es2022 dashboard.ts
