"""Bytes between processes.

`codec` turns registered messages into bytes, `envelope` puts the header in front that is checked
first, `endpoint` (with `listener`, `dialer`, `handshake`) moves them over ZeroMQ and knows who sent
them, `addresses` and `keys` say where and with whom that is allowed. Beyond this machine that takes
keys: `curve` has their files, `zap` guards a listener, `passport` is shown by who dials.
"""
