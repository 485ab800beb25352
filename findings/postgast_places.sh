#!/bin/sh
# postgast 0.2.0 (libpg_query of PostgreSQL 18): two things that its documentation says otherwise.
#
# 1. PgQueryError.cursorpos "is a 1-based byte offset". It counts characters: in the text below
#    the literal that is cut off begins at byte 18 and character 15, and 15 is what it says.
# 2. "Every function that calls into libpg_query may raise PgQueryError". parse() of a valid
#    expression that nests 50 levels raises google.protobuf.message.DecodeError: the tree is
#    deeper than protobuf reads. scan() takes the same text.
#
# Seen on 2026-11-30 with Python 3.11 and protobuf 7:
#   cursorpos 15
#   parse: DecodeError
#   scan: 100 tokens
# It fails once that changes.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q postgast==0.2.0
"$folder/venv/bin/python" - <<'PYTHON'
import postgast
from google.protobuf.message import DecodeError

text = "SELECT 'äöü', 'cut off"
try:
    postgast.scan(text)
except postgast.PgQueryError as error:
    print("cursorpos", error.cursorpos)
    assert error.cursorpos == text.index("'cut") + 1
    assert error.cursorpos != text.encode().index(b"'cut") + 1

deep = "SELECT " + " || ".join(["a"] * 50)
try:
    postgast.parse(deep)
    raise SystemExit("parse() reads it now")
except DecodeError:
    print("parse: DecodeError")
print("scan:", len(postgast.scan(deep).tokens), "tokens")
PYTHON
