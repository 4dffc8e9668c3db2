"""A replicated store of keys and values, after the model of etcd.

`machine.Machine` is one group's state: entries go in, answers come out. `commands` has the formats,
and what clients need to write and read them. Underneath, `state` has the steps of every change,
made of `store` (keys), `leases`, `sessions` and `history`; `writes`, `txn` and `reads` do what is
asked, `checks` says whether it was asked well, `limits` how much is taken, and `pieces` makes
snapshots.
"""
