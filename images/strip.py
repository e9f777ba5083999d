"""Cut off shared objects what nothing loads: symbol tables and debug information, which wheels bring along.

A loader goes by the program headers alone. What lies behind the last byte that they name is for debuggers.

strip.py DIRECTORY
"""

from __future__ import annotations

import struct
import sys
from pathlib import Path

_IDENT = b"\x7fELF\x02\x01"
"""64 bits, little endian: both processor types that images are built for."""
_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SEGMENT = struct.Struct("<IIQQQQQQ")


def strip(path: Path) -> int:
    """Cut one shared object; return how many bytes that saved. What is no ELF file of these types stays as it is."""
    content = path.read_bytes()
    if not content.startswith(_IDENT):
        return 0
    header = list(_HEADER.unpack_from(content))
    table, size, count = header[5], header[9], header[10]
    segments = [_SEGMENT.unpack_from(content, table + index * size) for index in range(count)]
    end: int = max([table + size * count, *(segment[2] + segment[5] for segment in segments)])
    # No section headers any more: their table lies behind the end.
    header[6], header[12], header[13] = 0, 0, 0
    path.write_bytes(_HEADER.pack(*header) + content[_HEADER.size : end])
    return len(content) - end


def main(directory: str) -> None:
    """Cut all shared objects below a directory."""
    saved = sum(strip(path) for path in sorted(Path(directory).rglob("*.so*")) if path.is_file())
    print(f"cut {saved:,} bytes off shared objects")


if __name__ == "__main__":
    main(sys.argv[1])
