"""CRC32C against the definition, one bit at a time."""

import mmap

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.kernels.checksum import crc32c


def slow(data: bytes, crc: int = 0) -> int:
    """The sum as RFC 3720 defines it: the remainder by the polynomial, bits reversed."""
    crc ^= 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


@pytest.mark.parametrize(
    ("data", "crc"),
    [
        (b"", 0),
        (b"123456789", 0xE3069283),
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (bytes(range(31, -1, -1)), 0x113FDB5C),
    ],
)
def test_published_values(data: bytes, crc: int) -> None:
    """RFC 3720, appendix B.4."""
    assert crc32c(data) == crc


@given(st.binary(max_size=300), st.integers(0, 2**32 - 1), st.integers(0, 9))
def test_equals_the_definition(data: bytes, crc: int, skip: int) -> None:
    view = memoryview(data)[skip:]
    assert crc32c(view, crc) == slow(bytes(view), crc)


@given(st.binary(max_size=100), st.binary(max_size=100))
def test_continues(first: bytes, second: bytes) -> None:
    assert crc32c(second, crc32c(first)) == crc32c(first + second)


def test_large_and_shared_buffers() -> None:
    data = bytes(range(256)) * 512
    pieces = 0
    for start in range(0, len(data), 1000):
        pieces = crc32c(data[start : start + 1000], pieces)
    with mmap.mmap(-1, len(data)) as shared:
        shared[:] = data
        assert crc32c(shared) == crc32c(bytearray(data)) == crc32c(data) == pieces


def test_refuses_what_is_not_bytes() -> None:
    with pytest.raises(TypeError):
        crc32c("text")  # type: ignore[arg-type]
    with pytest.raises((BufferError, ValueError)):
        crc32c(memoryview(b"abcd")[::2])
