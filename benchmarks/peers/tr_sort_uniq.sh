#!/bin/sh
# The shell's own answer. Bytes, not letters: a word with a letter outside ASCII is cut there.
# usage: tr_sort_uniq.sh WORKERS OUTPUT INPUT...
workers=$1 output=$2
shift 2
export LC_ALL=C
cat "$@" | tr -cs 'A-Za-z' '\n' | sort --parallel="$workers" | uniq -c |
    awk '$2 != "" { print $2 " " $1 }' > "$output"
