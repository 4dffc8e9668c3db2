"""Scripts of commands, one to a line, for a real Redis and for us: all replies have to be equal."""

from __future__ import annotations

PLAYS = {
    "strings": r"""
        get k
        set k v
        get k
        strlen k
        append k 123
        append new abc
        get k
        getset k other
        getset absent x
        getdel absent
        getdel absent
        exists k k nope
        type k
        type nope
        setnx k 1
        setnx k2 1
        get k2
        set k ""
        get k
        strlen k
        append k ""
        set bin "a\x00\r\nb\xff"
        get bin
        strlen nope
        del k k2 nope
        unlink bin
        del bin
        touch absent new
        SeT mixed Case
        GET mixed
    """,
    "set": """
        set k v nx
        set k w nx
        set k w xx
        set nope w xx
        get nope
        set k x get
        set nope2 x get
        set k y nx get
        set fresh y nx get
        get k
        set k z xx get
        set k v ex 100
        ttl k
        set k w keepttl
        ttl k
        set k w
        ttl k
        set k v px 100000
        ttl k
        set k v exat 33177117420
        set k v pxat 33177117420000
        set k v nx ex 100
        set k3 v nx ex 100
        ttl k3
        setex k 100 v
        ttl k
        psetex k 100000 v
        ttl k
        set k v nx xx
        set k v xx nx
        set k v ex 1 px 1
        set k v ex 1 keepttl
        set k v keepttl ex 1
        set k v ex
        set k v ex x
        set k v ex 0
        set k v ex -1
        set k v px 0
        set k v exat 0
        set k v ex 9223372036854775807
        set k v bogus
        setex k 0 v
        setex k -5 v
        setex k x v
        psetex k 0 v
        set k v exat 1
        get k
    """,
    "numbers": """
        incr c
        incr c
        incrby c 10
        incrby c -3
        decr c
        decrby c 5
        get c
        set c 9223372036854775807
        incr c
        decr c
        set c -9223372036854775808
        decr c
        decrby c -9223372036854775808
        incrby c x
        incrby c 1.5
        incrby c " 1"
        set c abc
        incr c
        set c ""
        incr c
        set c 1.0
        incr c
        set c " 1"
        incr c
        set c 01
        incr c
        set c -0
        incr c
        set c 9223372036854775808
        incr c
        set c 5 ex 100
        incr c
        ttl c
        append c 0
        incr c
    """,
    "many keys": """
        mset a 1 b 2 c 3
        mget a b nope c a
        mset a 1 b
        msetnx a 1 d 2
        get d
        msetnx d 1 e 2
        mget d e
        mset x 1 x 2
        get x
        exists a b c d e f
        del a b c nope
        mget a b c
    """,
    "expiry": """
        ttl nope
        pttl nope
        set k v
        ttl k
        pttl k
        expire nope 10
        expire k 100
        ttl k
        expire k 200 nx
        expire k 200 xx
        ttl k
        expire k 100 gt
        expire k 300 gt
        expire k 400 lt
        expire k 100 lt
        ttl k
        expire k 1 nx xx
        expire k 1 gt lt
        expire k 1 bogus
        expire k x
        expire k 9223372036854775807
        expire k -9223372036854775807
        persist k
        persist k
        ttl k
        expire k 100 gt
        expire k 100 lt
        ttl k
        persist nope
        pexpire k 100000
        ttl k
        expireat k 1
        get k
        set k v
        expire k -1
        exists k
        set k v
        pexpire k 0
        exists k
        set k v
        pexpireat k 33177117420000
        getex k
        getex k ex 50
        ttl k
        getex k persist
        ttl k
        getex k persist
        getex nope ex 10
        getex k ex 0
        getex k ex x
        getex k bogus
        getex k ex 1 px 1
        getex k exat 1
        get k
    """,
    "transactions": """
        multi
        set a 1
        incr a
        get a
        exec
        multi
        multi
        set a 5
        exec
        get a
        exec
        discard
        multi
        set a 9
        discard
        get a
        multi
        set a
        exec
        multi
        nonsense
        set a 11
        exec
        get a
        multi
        incr text
        set text abc
        incr text
        append text d
        get text
        del text
        exists text
        exec
        multi
        exec
        multi
        ping
        echo hello
        set b 2
        select 0
        exec
        watch a
        set a 20
        multi
        set a 21
        exec
        get a
        watch a nope
        multi
        set a 22
        mget a nope
        exec
        watch a
        unwatch
        set a 23
        multi
        get a
        exec
        watch a
        multi
        watch b
        incr a
        exec
        watch gone
        set gone 1
        del gone
        set gone 1
        multi
        ping
        exec
        multi
        set t v ex 100
        ttl t
        persist t
        ttl t
        expire t 50
        ttl t
        getex t persist
        ttl t
        exec
        multi
        set a 1
        set a 2
        set b 3
        mset a 4 b 5
        getset a 6
        getdel a
        setnx a 7
        incrby a 10
        exec
        mget a b
    """,
    "errors": r"""
        get
        get a b
        set a
        nonsense
        nonsense a b "c d"
        strlen
        mget
        exec
        discard
        multi x
        watch
        select 1
        select x
        select 0
        echo
        ping a b
        ping
        ping hello
        echo "a\r\nb"
        auth x
        auth default x
        auth nobody x
        client setname "a b"
        client setname me
        client getname
        client setname ""
        client getname
        client bogus
        client setname
        hello 4
        hello x
        hello 2 bogus
        scan x
        scan 0 count 0
        scan 0 count x
        scan 0 bogus
        scan 0 match
        cluster bogus
        evalsha ffffffffffffffffffffffffffffffffffffffff 0
        command count x
        config bogus
        quit extra
    """,
    "keys": """
        mset one 1 two 2 three 3 "f[x]" 4 f* 5
        keys ?ne
        keys o[a-n]e
        keys t[^w]ree
        keys "f\\\\[x\\\\]"
        keys f\\\\*
        keys nothing*
        keys one
        scan 0 match one count 1000
        scan 0 match t?o count 1000
        scan 0 count 1000 match three type string
        scan 0 count 1000 type hash
        keys tw*
        dbsize
        reset
        ping
    """,
}
"""All keys of one are there only for it, and KEYS finds one at most, for Redis has no order."""
