#!/bin/sh
# The fastest shell pipeline we know: no sort before counting. Bytes, not letters (ASCII words).
# usage: tr_mawk.sh WORKERS OUTPUT INPUT...
output=$2
shift 2
export LC_ALL=C
cat "$@" | tr -cs 'A-Za-z' '\n' | mawk '
    $0 != "" { count[$0]++ }
    END { for (word in count) print word, count[word] }' | sort > "$output"
