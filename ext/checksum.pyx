"""CRC32C for Python: one call, any object with a contiguous buffer."""

cimport cython
from libc.stdint cimport uint8_t, uint32_t


cdef extern from "crc32c.h" nogil:
    uint32_t c_crc32c "crc32c"(uint32_t crc, const uint8_t *bytes, size_t size)


# Below this the sum takes less time than giving up the GIL and taking it again.
cdef enum:
    GIL_BYTES = 1 << 15


@cython.boundscheck(False)
def crc32c(const uint8_t[::1] data not None, uint32_t crc=0):
    """CRC32C of `data`, continued from `crc`."""
    cdef size_t size = <size_t>data.shape[0]
    if size == 0:
        return crc
    if size < GIL_BYTES:
        return c_crc32c(crc, &data[0], size)
    with nogil:
        crc = c_crc32c(crc, &data[0], size)
    return crc
