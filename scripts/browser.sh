#!/usr/bin/env bash
# browser.sh FILE DIR: opens a page in Chromium, as light, dark and narrow screens show it; puts a picture of
# each into DIR, and prints what the page asked for, complained of and has in it, as JSON.
# shellcheck source=scripts/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
# shellcheck source=scripts/npm.sh
. "$ROOT/scripts/npm.sh"
[ $# = 2 ] || { sed -n '2,3s/^# //p' "${BASH_SOURCE[0]}" >&2; exit 2; }
page=$(realpath "$1") dir=$(realpath "$2")

browser() { command -v chromium || command -v chromium-browser || command -v google-chrome; }
if ! browser >/dev/null; then
  say "installing chromium"
  apt_install chromium || die "chromium is missing, please install it"
fi
fetch_packages browser Puppeteer
# Another process may be reading the script.
cp "$ROOT/scripts/browser/look.mjs" "$packages/look.mjs.$$"
mv -f "$packages/look.mjs.$$" "$packages/look.mjs"
exec node "$packages/look.mjs" "$page" "$dir" "$(browser)"
