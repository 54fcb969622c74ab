"""From a scan and its chroma to the written derivative; the proof that its L* is the master's is in `worker.proof`."""

import contextlib
import dataclasses
import hashlib
import os
from collections.abc import Iterator
from typing import Final

import numpy as np
import pyvips

from model.chroma import ChromaUpsampler
from model.colorizer import Colorizer
from worker.classes import InputClass
from worker.colouring import colour_page, controlled
from worker.errors import OutputBlocked, ScanUnsupported
from worker.jpeg_writer import JpegWriter
from worker.marking import Origin, Statement
from worker.meanings import out_of_memory, wants_memory
from worker.metadata import carry
from worker.output_space import OutputSpace, output_space
from worker.png_writer import PngWriter
from worker.policy import Policy
from worker.profiles import ProfileUnusable
from worker.proof import LStarReport, Rendered, check, verify
from worker.publish import output_errors
from worker.scans import Scan
from worker.tiff_writer import TiffWriter
from worker.writers import Sheet, Writer

__all__ = ["LStarReport", "Origin", "Policy", "Rendered", "check", "controlled", "render", "verify"]

#: about so many bytes of RGB per strip
_STRIP_BYTES: Final = 4 * 2**20
#: qualities tried when the one asked for moves L* beyond the limit (strong film grain)
_JPEG_LADDER: Final = (98, 100)
_JPEG_SIDE: Final = 65_500  # libjpeg's limit


def render(scan: Scan, colorizer: Colorizer, target: int, *, policy: Policy, origin: Origin) -> Rendered:
    """Colour a scan, every page of it, and write its derivative.

    The net runs once per page, on the page's small copy; L* passes through in strips and comes out unchanged.

    Args:
        scan: open, its first page.
        colorizer: warm.
        target: descriptor of an empty file opened for reading and writing; not synchronised here.
        policy: what to write.
        origin: for the marking.

    Raises:
        ScanTruncated, ScanBroken: the scan does not decode.
        ScanUnsupported: a page is not for us, or the kind asked for cannot hold the scan.
        OutputFull, OutputBlocked: the target cannot be written.
    """
    _refuse(scan, policy)
    rendered = _written(scan, colorizer, target, policy, origin)
    if rendered.kind != "jpeg":
        return rendered
    for quality in (quality for quality in _JPEG_LADDER if quality > policy.jpeg_quality):
        if verify(scan, target).within:
            break
        os.ftruncate(target, 0)
        os.lseek(target, 0, os.SEEK_SET)
        finer = dataclasses.replace(policy, jpeg_quality=quality)
        rendered = _written(scan, colorizer, target, finer, origin)
        note = f"JPEG quality {quality} instead of {policy.jpeg_quality}, to keep L*"
        rendered = dataclasses.replace(rendered, warnings=(*rendered.warnings, note))
    return rendered


def _refuse(scan: Scan, policy: Policy) -> None:
    """What the kind to be written cannot hold."""
    kind = policy.kind_for(scan.kind)
    if scan.pages > 1 and kind != "tiff":
        raise ScanUnsupported(
            f"The scan has {scan.pages} pages and a {kind.upper()} holds one: set output_format to tiff."
        )
    if kind == "jpeg" and max(scan.width, scan.height) > _JPEG_SIDE:
        raise ScanUnsupported(f"A JPEG cannot be {scan.width} × {scan.height} px: set output_format to tiff.")


def _written(scan: Scan, colorizer: Colorizer, target: int, policy: Policy, origin: Origin) -> Rendered:
    """One writing of the file, from its start."""
    kind = policy.kind_for(scan.kind)
    digest, means, warnings = hashlib.sha256(), [], [*scan.warnings]
    writer: Writer | None = None
    with _named_output_errors():
        try:
            for page in scan.all_pages():
                sheet, notes = _sheet(page, policy, origin)
                warnings += notes
                writer = _next_page(writer, kind, target, sheet, policy, scan.header.total_pixels)
                chroma = _chroma(page, colorizer, policy)
                upsampler = ChromaUpsampler(chroma, page.small, page.width, page.height)
                mean = colour_page(
                    page.strips(sheet.rows), upsampler, writer,
                    bit_depth=sheet.bit_depth, threads=policy.threads, hashed=digest.update,
                    space=_space(policy),
                    tint=page.tint if policy.tone == "preserve" and page.input_class == InputClass.TONED else None,
                )  # fmt: skip
                means += [mean] if chroma.any() else []
        except BaseException:
            if writer:
                writer.abort()
            raise
        if writer:
            writer.finish()
    return Rendered(
        width=scan.width, height=scan.height, bit_depth=policy.depth_for(kind, scan.bit_depth), kind=kind,
        pages=scan.pages, mean_chroma=round(float(np.mean(means)), 3) if means else 0.0,
        pixels_sha256=digest.hexdigest(), model_version=origin.model_version, warnings=tuple(dict.fromkeys(warnings)),
    )  # fmt: skip


def _chroma(page: Scan, colorizer: Colorizer, policy: Policy) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """a*, b* of a page `[h, w, 2]`; none for a blank or two-toned page among others, which stays as it is."""
    if page.pages > 1 and page.input_class in (InputClass.BLANK, InputClass.BITONAL):
        return np.zeros((2, 2, 2), np.float32)
    return controlled(colorizer.chroma(page.small, page.width / page.height), page.small, policy)


def _space(policy: Policy) -> OutputSpace:
    """The space to write in; read once per process and file."""
    try:
        return output_space(policy.profile)
    except ProfileUnusable as error:
        raise OutputBlocked(f"The derivative cannot be written: {error}. Correct the setting.") from error


def _next_page(
    writer: Writer | None, kind: str, target: int, sheet: Sheet, policy: Policy, total_pixels: int
) -> Writer:
    """The writer at the start of a page: a new one for the first."""
    if isinstance(writer, TiffWriter):
        writer.end_page()
        writer.begin(sheet)
        return writer
    if kind == "jpeg":
        return JpegWriter(target, sheet, policy.jpeg_quality)
    if kind == "png":
        return PngWriter(target, sheet)
    return TiffWriter(target, sheet, policy.tiff_compression, total_pixels * 3 * sheet.bit_depth // 8)


def _sheet(page: Scan, policy: Policy, origin: Origin) -> tuple[Sheet, list[str]]:
    """What is written besides a page's pixels, and warnings."""
    kind = policy.kind_for(page.kind)
    depth, space = policy.depth_for(kind, page.bit_depth), _space(policy)
    statement = Statement(
        origin=origin, source_type=policy.digital_source_type, words=policy.words, profile=space.name,
        is_srgb=space.is_srgb,
    )  # fmt: skip
    carried = carry(page.header, *page.bytes, statement, kind=kind)
    warnings = list(carried.warnings)
    if depth < page.bit_depth:
        warnings.append(f"{page.bit_depth} bits were written as {depth}")
    sheet = Sheet(
        width=page.width, height=page.height, bit_depth=depth,
        rows=max(8, min(128, _STRIP_BYTES // (page.width * 3 * depth // 8))), icc=space.icc, xmp=carried.xmp,
        iptc=carried.iptc, tags=carried.tags, below=carried.below, orientation=page.orientation,
        x_resolution=page.x_resolution, y_resolution=page.y_resolution, resolution_unit=page.resolution_unit,
    )  # fmt: skip
    return sheet, warnings


@contextlib.contextmanager
def _named_output_errors() -> Iterator[None]:
    """Errors of the place written to, by their meaning; the JPEG encoder's included."""
    try:
        with output_errors():
            yield
    except pyvips.Error as error:
        if wants_memory(error):  # as a blocked output it would be tried for ever
            raise out_of_memory(error) from error
        raise OutputBlocked(f"The derivative could not be encoded ({str(error).strip()}). Look at the disk.") from error
