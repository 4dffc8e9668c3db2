# Key codecs: bytes whose unsigned lexicographic order is the order of the keys.
#
#   text     the UTF-8 of a str, whose order is that of its code points
#   bytes    as they are
#   integer  64 bits, big-endian, with the sign bit flipped
#   tuple    item after item, each beginning with a tag; the layout of FoundationDB's tuple layer
#            (design/tuple.md of that project), less its types that are not listed here:
#              None 00 (inside a tuple: 00 FF) · bytes 01 … 00 · str 02 … 00 · tuple 05 … 00
#              int 14 - n, or 14 + n, then n bytes: big-endian, of a negative one the complement
#            A byte 00 inside bytes or str is 00 FF, so an end, which no FF follows, comes first.
#
# Python cannot compare items of different types; here None < bytes < str < tuple < int.

cdef enum:
    TEXT, BYTES, INTEGER, TUPLE
    KEY_BYTES_MAX = 64 << 20
    TUPLE_DEPTH_MAX = 32
    TAG_NONE = 0x00
    TAG_BYTES = 0x01
    TAG_TEXT = 0x02
    TAG_TUPLE = 0x05
    TAG_ZERO = 0x14

CODECS = ("text", "bytes", "integer", "tuple")
_TYPES = {"text": "str", "bytes": "bytes", "integer": "int", "tuple": "tuple"}


class KeyTypeError(TypeError):
    """map yielded a key that the job's key codec cannot encode."""


class ValueTypeError(TypeError):
    """map or combine yielded a value that msgpack cannot encode."""


cdef int codec_number(codec) except -1:
    if codec not in CODECS:
        raise ValueError(f"keys = {codec!r}: a job's keys are one of {', '.join(CODECS)}.")
    return CODECS.index(codec)


cdef str shown(value):
    """A value in a message: its repr, if that is not long."""
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


cdef object wrong_type(int codec, key):
    declared = CODECS[codec]
    got = type(key).__name__
    fitting = [name for name, kind in _TYPES.items() if kind == got]
    other = f', or declare keys = "{fitting[0]}"' if fitting else ""
    return KeyTypeError(
        f'The job declares keys = "{declared}", but a key is {shown(key)} of type {got}: '
        f"yield {_TYPES[declared]} keys{other}."
    )


cdef object wrong_key(key, why):
    return KeyTypeError(f"The key {shown(key)} cannot be stored: {why}.")


cdef object exact_key(int codec, key):
    """The key as the exact type of its codec, or KeyTypeError. A bool is not an integer here."""
    if codec == TEXT and isinstance(key, str):
        return str.__str__(key)
    if codec == BYTES and isinstance(key, bytes):
        return bytes(key)
    if codec == TUPLE and isinstance(key, tuple):
        return key
    if codec == INTEGER and isinstance(key, int) and not isinstance(key, bool):
        return int(key)
    raise wrong_type(codec, key)


cdef int64_t key_integer(key) except? -1:
    cdef int overflow
    cdef int64_t number = PyLong_AsLongLongAndOverflow(key, &overflow)
    if overflow:
        raise wrong_key(key, "integers in keys have 64 bits with their sign")
    return number


cdef const uint8_t *key_text(key, size_t *size) except NULL:
    try:
        return groups_utf8(key, size)
    except UnicodeEncodeError:
        raise wrong_key(
            key, 'it holds a lone surrogate, which has no UTF-8; decode with errors="replace"'
        ) from None


# --- tuples --------------------------------------------------------------------------------------

cdef int append(groups_bytes *out, const void *data, size_t size) except -1:
    if groups_append(out, data, size) < 0:
        raise MemoryError("no memory for a key")
    return 0


cdef int append_byte(groups_bytes *out, int byte) except -1:
    cdef uint8_t data = <uint8_t>byte
    return append(out, &data, 1)


cdef int append_escaped(groups_bytes *out, int tag, const uint8_t *data, size_t size) except -1:
    cdef const uint8_t *zero
    cdef size_t run
    append_byte(out, tag)
    while size:
        zero = <const uint8_t *>memchr(data, 0, size)
        if zero == NULL:
            append(out, data, size)
            break
        run = zero - data + 1
        append(out, data, run)
        append_byte(out, 0xff)
        data += run
        size -= run
    return append_byte(out, 0)


cdef int append_integer(groups_bytes *out, int64_t number) except -1:
    cdef uint64_t magnitude = -<uint64_t>number if number < 0 else <uint64_t>number
    cdef uint8_t data[9]
    cdef int size = 0
    while size < 8 and magnitude >> (8 * size):
        size += 1
    data[0] = <uint8_t>(TAG_ZERO - size if number < 0 else TAG_ZERO + size)
    groups_store(data + 1, ~magnitude if number < 0 else magnitude, size)
    return append(out, data, size + 1)


cdef int append_tuple(groups_bytes *out, tuple key, int depth) except -1:
    cdef size_t size
    cdef const uint8_t *text
    if depth > TUPLE_DEPTH_MAX:
        raise wrong_key(key, f"its tuples are nested more than {TUPLE_DEPTH_MAX} deep")
    for item in key:
        if item is None:
            append_byte(out, TAG_NONE)
            if depth:
                append_byte(out, 0xff)
        elif isinstance(item, str):
            text = key_text(item, &size)
            append_escaped(out, TAG_TEXT, text, size)
        elif isinstance(item, bytes):
            append_escaped(
                out, TAG_BYTES, <const uint8_t *>PyBytes_AS_STRING(item), PyBytes_GET_SIZE(item))
        elif isinstance(item, int) and not isinstance(item, bool):
            append_integer(out, key_integer(item))
        elif isinstance(item, tuple):
            append_byte(out, TAG_TUPLE)
            append_tuple(out, item, depth + 1)
            append_byte(out, 0)
        else:
            raise wrong_key(
                item,
                f"a tuple key holds str, bytes, int, None or tuples, not {type(item).__name__}",
            )
    return 0


cdef bytes encode_tuple(tuple key):
    cdef groups_bytes out
    memset(&out, 0, sizeof(out))
    try:
        append_tuple(&out, key, 0)
        if out.used == 0:
            return b""
        return PyBytes_FromStringAndSize(<char *>out.bytes, out.used)
    finally:
        groups_free(&out)


cdef const uint8_t *escaped_end(const uint8_t *at, const uint8_t *end) except NULL:
    """The zero that ends an escaped string."""
    cdef const uint8_t *zero
    while True:
        zero = <const uint8_t *>memchr(at, 0, end - at)
        if zero == NULL:
            raise ValueError("a tuple key ends inside a string")
        if zero + 1 == end or zero[1] != 0xff:
            return zero
        at = zero + 2


cdef object decode_integer(const uint8_t **at, const uint8_t *end, int tag):
    cdef int size = tag - TAG_ZERO if tag >= TAG_ZERO else TAG_ZERO - tag
    cdef uint64_t data, unused
    if end - at[0] < size:
        raise ValueError("a tuple key ends inside an integer")
    data = groups_load(at[0], size)
    at[0] += size
    if tag >= TAG_ZERO:
        return data
    unused = 0xffffffffffffffffULL << (8 * (size - 1)) << 8
    return -<object>(~(data | unused))


cdef tuple decode_tuple(const uint8_t **at, const uint8_t *end, int depth):
    cdef const uint8_t *stop
    cdef int tag
    cdef list items = []
    while at[0] < end:
        tag = at[0][0]
        at[0] += 1
        if tag == TAG_NONE:
            if depth and (at[0] == end or at[0][0] != 0xff):
                return tuple(items)
            at[0] += 1 if depth else 0
            items.append(None)
        elif tag == TAG_TEXT or tag == TAG_BYTES:
            stop = escaped_end(at[0], end)
            data = (<char *>at[0])[:stop - at[0]].replace(b"\x00\xff", b"\x00")
            items.append(data.decode() if tag == TAG_TEXT else data)
            at[0] = stop + 1
        elif tag == TAG_TUPLE and depth < TUPLE_DEPTH_MAX:
            items.append(decode_tuple(at, end, depth + 1))
        elif TAG_ZERO - 8 <= tag <= TAG_ZERO + 8:
            items.append(decode_integer(at, end, tag))
        else:
            raise ValueError(f"a tuple key holds the unknown tag {tag}")
    if depth:
        raise ValueError("a tuple key ends inside a tuple")
    return tuple(items)


# --- one key -------------------------------------------------------------------------------------

cdef object decoded(int codec, const uint8_t *data, size_t size):
    cdef const uint8_t *at = data
    if codec == TEXT:
        return groups_text(data, size)
    if codec == BYTES:
        return PyBytes_FromStringAndSize(<const char *>data, size)
    if codec == TUPLE:
        return decode_tuple(&at, data + size, 0)
    if size != 8:
        raise ValueError(f"an integer key has 8 bytes, not {size}")
    return <int64_t>(groups_load(data, 8) ^ (<uint64_t>1 << 63))


def encode_key(codec, key):
    """Bytes whose unsigned lexicographic order is the keys' order."""
    cdef int number = codec_number(codec)
    cdef uint8_t data[8]
    cdef size_t size
    key = exact_key(number, key)
    if number == TEXT:
        text = key_text(key, &size)
        return PyBytes_FromStringAndSize(<const char *>text, size)
    if number == INTEGER:
        groups_store(data, <uint64_t>key_integer(key) ^ (<uint64_t>1 << 63), 8)
        return PyBytes_FromStringAndSize(<const char *>data, 8)
    return encode_tuple(key) if number == TUPLE else key


def decode_key(codec, data):
    """The key whose encoding is `data`."""
    cdef bytes exact = bytes(data)
    return decoded(
        codec_number(codec), <const uint8_t *>PyBytes_AS_STRING(exact), PyBytes_GET_SIZE(exact))
