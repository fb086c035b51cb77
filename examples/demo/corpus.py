#!/usr/bin/env python3
"""Write text documents found under the given directories as rows for COPY documents FROM STDIN.

    corpus.py LIMIT DIRECTORY...    rows to stdout, how many to stderr

Directories first named are taken first. A document is a text file, gzipped or not, between 500 bytes
and 200 kB; a text that was already seen under another path is left out.
"""

import gzip
import hashlib
import os
import re
import sys
from datetime import datetime, timezone

# Texts and documented sources that Debian packages bring; no HTML.
WANTED = re.compile(
    r"(^|/)(copyright|changelog[^/]*|README[^/]*|NEWS[^/]*|TODO[^/]*|FAQ[^/]*|[^/]+\.(txt|md|rst|pod|pm))(\.gz)?$"
)
SMALLEST, LARGEST = 500, 200_000


def files(directory):
    """Regular files below, in a stable order."""
    for parent, children, names in os.walk(directory):
        children.sort()
        for name in sorted(names):
            path = os.path.join(parent, name)
            if WANTED.search(path) and os.path.isfile(path) and not os.path.islink(path):
                yield path


def text_of(path):
    """The file's text, or None where it is no document for us."""
    try:
        with (gzip.open if path.endswith(".gz") else open)(path, "rb") as f:
            data = f.read(LARGEST + 1)
        text = data.decode("utf-8")
    except (OSError, EOFError, UnicodeDecodeError):
        return None
    if not SMALLEST <= len(data) <= LARGEST or "\0" in text:
        return None
    return text


def title_of(text):
    """The first line with a word in it."""
    for line in text.splitlines():
        if re.search(r"\w{3}", line):
            return line.strip()[:120]
    return None


def column(value):
    """A value in COPY's text format."""
    if value is None:
        return r"\N"
    return value.replace("\\", r"\\").replace("\t", r"\t").replace("\n", r"\n").replace("\r", r"\r")


def main():
    limit, directories = int(sys.argv[1]), sys.argv[2:]
    seen, size = set(), 0
    sys.stdout.reconfigure(encoding="utf-8", newline="\n")
    for path in (p for d in directories for p in files(d)):
        if len(seen) >= limit:
            break
        text = text_of(path)
        digest = text and hashlib.sha256(text.encode()).digest()
        if not text or digest in seen:
            continue
        seen.add(digest)
        size += len(text)
        modified = datetime.fromtimestamp(os.path.getmtime(path), timezone.utc).isoformat()
        # The same name wherever the package was unpacked.
        path = re.sub(r".*?(?=/usr/share/)", "", path, count=1).encode(errors="replace").decode()
        print("\t".join(map(column, (path, title_of(text), text, modified))))
    print(f"{len(seen)} documents, {size / 1e6:.1f} MB", file=sys.stderr)


main()
