"""CRC32C (Castagnoli), by instruction where the machine has one (`ext/checksum.pyx`)."""

def crc32c(data: bytes | bytearray | memoryview, crc: int = 0) -> int:
    """CRC32C of `data`, continued from `crc`. RFC 3720, section 12.1."""
