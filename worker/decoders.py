"""Code values of a scan, top to bottom in strips, never whole: libvips, cache off, reading the open file itself.

libvips keeps loads by file name, so a re-dropped file would give its old pixels (libvips/pyvips#54): here it gets a
descriptor, never a name, and `set_up_libvips` turns the cache off.
"""

import contextlib
import errno
import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyvips

from worker.errors import (
    ScanBroken,
    ScanTruncated,
    ScanUnreadable,
    ScanUnsupported,
)
from worker.header import Header
from worker.meanings import in_words, out_of_memory, wants_memory
from worker.tiff_tags import Directory, alone
from worker.whole_decoders import decode_whole, needs_whole_page

Codes = npt.NDArray[np.unsignedinteger]

_EARLY: Final = re.compile(
    r"premature end|truncated|not enough data|bad seek|end of (file|image|input)|EOF|read error at", re.I
)
#: what the system says when the drive or share is at fault, not the file
_AWAY: Final = re.compile(
    "|".join(
        re.escape(os.strerror(number))
        for number in (errno.EIO, errno.ESTALE, errno.ENXIO, errno.ETIMEDOUT, errno.ENOTCONN, errno.EHOSTDOWN)
    )
)
#: of a page among others, at a time: libtiff asks for a whole strip at once, which may have a GiB
_READ_BYTES: Final = 1 << 16
_FORMATS: Final = {"uchar": np.uint8, "ushort": np.uint16}


def set_up_libvips(*, threads: int = 1) -> None:
    """Make libvips fit for a long-lived worker: no cache, few threads. Once per process, after it was started.

    Args:
        threads: libvips' own, per picture.
    """
    logging.getLogger("pyvips").setLevel(logging.ERROR)  # what is wrong with a file is said by our own errors
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)
    os.environ["VIPS_CONCURRENCY"] = str(threads)  # read by libvips when its first pipeline starts
    pyvips.cache_set_max(0)
    pyvips.cache_set_max_files(0)
    pyvips.cache_set_max_mem(0)


def fresh_descriptor(descriptor: int) -> int:
    """A read-only descriptor of the same open file with an offset of its own, to be closed by the caller.

    Through /proc it is the very inode that was opened (and hashed), even when its name has gone or changed.
    """
    for place in (f"/proc/self/fd/{descriptor}", f"/dev/fd/{descriptor}"):
        if Path(place).exists() or place.startswith("/proc"):
            with contextlib.suppress(OSError):
                return os.open(place, os.O_RDONLY | os.O_CLOEXEC)
    copy = os.dup(descriptor)
    os.lseek(copy, 0, os.SEEK_SET)
    return copy


def decode(descriptor: int, header: Header, rows: int) -> Iterator[Codes]:
    """The page's code values, strip by strip; 0 is black whatever the file's photometric says.

    Args:
        descriptor: of the open file; its offset is left alone.
        header: of the page.
        rows: per strip.

    Yields:
        `[<= rows, width]` (gray) or `[<= rows, width, channels]`, uint8 or uint16.

    Raises:
        ScanTruncated: the file ends too early.
        ScanBroken: it cannot be decoded.
        MemoryExceeded: not within the memory that a scan may take.
        ScanUnreadable: the drive or share fails.
        ScanUnsupported: it decodes to something else than its header says.
    """
    own, failed = fresh_descriptor(descriptor), list[OSError | MemoryError]()
    pyvips.vips_lib.vips_error_clear()  # warnings about earlier files stay in libvips' buffer
    try:
        if needs_whole_page(header):
            whole = decode_whole(own, header)
            for top in range(0, header.height, rows):
                yield _colour_only(whole[top : top + rows], header)
            return
        image = _open(own, header, failed)
        _compare(image, header)
        region = pyvips.Region.new(image)
        for top in range(0, header.height, rows):
            count = min(rows, header.height - top)
            block = region.fetch(0, top, header.width, count)
            codes = np.frombuffer(block, _FORMATS[image.format])
            yield _colour_only(codes.reshape(count, header.width, image.bands), header)
    except pyvips.Error as error:
        raise (_unread(failed[0]) if failed else _named(error, header)) from error
    finally:
        os.close(own)


def _colour_only(codes: Codes, header: Header) -> Codes:
    """Gray `[rows, W]` or RGB `[rows, W, 3]` without an alpha channel that hides nothing; raises where it does."""
    bands = codes.shape[2]
    if bands not in ((1, 2) if header.gray else (3, 4)):
        raise ScanBroken(
            f"The {header.kind.upper()} says {header.photometric} and holds {bands} channels: save it anew."
        )
    if bands in (2, 4) and (codes[..., -1] != np.iinfo(codes.dtype).max).any():
        raise ScanUnsupported("The picture has transparent parts: flatten it onto the colour that belongs behind them.")
    return codes[..., 0] if bands < 3 else np.ascontiguousarray(codes[..., :3])


def _alone(descriptor: int, directory: Directory, failed: list[OSError | MemoryError]) -> Any:
    """The file as if it had that page only: libtiff goes through all directories at every opening.

    What went wrong is put into `failed`: libvips is told of an end only.
    """
    size, at = os.fstat(descriptor).st_size, 0
    instead = alone(lambda offset, count: os.pread(descriptor, count, offset), directory)

    def read(count: int) -> bytes | bytearray:
        """At most so many bytes from where we are; none at the end."""
        nonlocal at
        try:
            data = bytearray(os.pread(descriptor, min(count, _READ_BYTES), at))
        except (OSError, MemoryError) as error:
            failed.append(error)
            return b""
        for place, raw in instead.items():
            low, high = max(place, at), min(place + len(raw), at + len(data))
            if low < high:
                data[low - at : high - at] = raw[low - place : high - place]
        at += len(data)
        return data

    def seek(offset: int, whence: int) -> int:
        """As lseek(2)."""
        nonlocal at
        at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: at, os.SEEK_END: size}[whence]
        return at

    source = pyvips.SourceCustom()
    source.on_read(read)
    source.on_seek(seek)
    return source


def _open(descriptor: int, header: Header, failed: list[OSError | MemoryError]) -> Any:
    # `unlimited`: libtiff would refuse strips over 50 MB as stored; ours are bounded by `scans.LARGEST_SEGMENT`
    options: dict[str, Any] = {"unlimited": True} if header.kind == "tiff" else {}
    if header.pages > 1 and header.directory is not None:
        source = _alone(descriptor, header.directory, failed)
    else:
        source = pyvips.Source.new_from_descriptor(descriptor)
        options |= {"page": header.directory_index} if options else {}
    return pyvips.Image.new_from_source(source, "", access="sequential", fail_on="error", **options)


def _compare(image: Any, header: Header) -> None:
    """Refuse what libvips read differently from what the header says."""
    same_size = (image.width, image.height) == (header.width, header.height)
    same_depth = image.format == ("uchar" if header.bit_depth <= 8 else "ushort")
    if not same_size or not same_depth or image.bands > 4:
        raise ScanUnsupported(
            f"The {header.kind.upper()} says {header.width} × {header.height} px of {header.bit_depth} bits and "
            f"decodes to {image.width} × {image.height} px ({image.format}): convert it to a plain TIFF."
        )


def _away(reason: str) -> ScanUnreadable:
    return ScanUnreadable(f"The file cannot be read at the moment ({reason}): check the drive or share.")


def _unread(error: OSError | MemoryError) -> Exception:
    if isinstance(error, MemoryError) or wants_memory(error):
        return out_of_memory(error)
    return _away(in_words(error))


def _named(error: pyvips.Error, header: Header) -> Exception:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    reason = lines[-1] if lines else "no reason given"
    if wants_memory(error):
        return out_of_memory(error)
    if _AWAY.search(str(error)):
        return _away(reason)
    if _EARLY.search(str(error)):
        return ScanTruncated(
            f"The {header.kind.upper()} ends too early ({reason}): let the copy finish or copy it again."
        )
    return ScanBroken(
        f"The {header.kind.upper()} cannot be decoded ({reason}): open it in a viewer and scan or copy it again."
    )
