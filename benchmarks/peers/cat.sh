#!/bin/sh
# Reading alone: the floor under every row. The output stays empty and is not compared.
# usage: cat.sh WORKERS OUTPUT INPUT...
shift 2
exec cat "$@" > /dev/null
