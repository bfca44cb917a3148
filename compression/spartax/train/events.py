"""TensorBoard's event format, as far as scalars need it: protocol buffers in checksummed records.

A record is its length, the masked CRC-32C of the length, the data and the masked CRC-32C of the data (TFRecord). The
fields are those of `event.proto` and `summary.proto`.
"""

import struct
from collections.abc import Mapping

_START = 1  # SessionLog.START


def version(wall_time: float) -> bytes:
    """The first record of a file."""
    return _record(_event(wall_time, 0) + _bytes(3, b"brain.Event:2"))


def start(wall_time: float, step: int) -> bytes:
    """A run begins at this step: readers drop what files before it hold of this step and later ones."""
    return _record(_event(wall_time, step) + _bytes(7, _number(1, _START)))


def scalars(wall_time: float, step: int, values: Mapping[str, float]) -> bytes:
    """One record with all values of a step."""
    parts = (_bytes(1, name.encode()) + b"\x15" + struct.pack("<f", value) for name, value in values.items())
    return _record(_event(wall_time, step) + _bytes(5, b"".join(_bytes(1, part) for part in parts)))


def crc32c(data: bytes) -> int:
    """The Castagnoli checksum."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _TABLE[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return crc ^ 0xFFFFFFFF


def _row(crc: int) -> int:
    for _ in range(8):
        crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    return crc


_TABLE = [_row(byte) for byte in range(256)]


def _record(data: bytes) -> bytes:
    length = struct.pack("<Q", len(data))
    return length + _checksum(length) + data + _checksum(data)


def _checksum(data: bytes) -> bytes:
    crc = crc32c(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def _event(wall_time: float, step: int) -> bytes:
    return b"\x09" + struct.pack("<d", wall_time) + _number(2, step)


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _bytes(field: int, data: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(data)) + data


def _varint(value: int) -> bytes:
    head = []
    while value > 0x7F:
        head.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*head, value])
