"""ICC profiles built in code, for scans that carry one."""

import struct

import numpy as np


def gray_profile(curve: np.ndarray | float) -> bytes:
    """A minimal ICC v2 gray profile with one curve (a gamma, or a table over 0..1)."""
    if isinstance(curve, float):
        values = struct.pack(">IH", 1, round(curve * 256))
    else:
        values = struct.pack(">I", len(curve)) + np.round(curve * 65535).astype(">u2").tobytes()
    tags = {
        b"desc": b"desc\0\0\0\0" + struct.pack(">I", 5) + b"made\0" + bytes(78),
        b"wtpt": b"XYZ \0\0\0\0" + struct.pack(">3i", 63190, 65536, 54061),
        b"kTRC": b"curv\0\0\0\0" + values,
    }
    table, body = b"", b""
    for name, data in tags.items():
        table += name + struct.pack(">II", 132 + 12 * len(tags) + len(body), len(data))
        body += data + b"\0" * (-len(data) % 4)
    head = (
        struct.pack(">I4sI", 132 + len(table) + len(body), b"none", 0x02400000) + b"mntrGRAYXYZ " + bytes(12) + b"acsp"
    )
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body
