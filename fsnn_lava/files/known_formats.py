"""What a file is that was given in the place of another: told by its first bytes, for error messages."""

import contextlib
from pathlib import Path

_BEGINNINGS = (
    (b"version https://git-lfs", "a Git LFS pointer: the file itself was not downloaded, run git lfs pull"),
    (b"#!AER-DAT1", "a recording in the format AEDAT 1"),
    (b"#!AER-DAT2", "a recording in the format AEDAT 2"),
    (b"#!AER-DAT3", "a recording in the format AEDAT 3"),
    (b"#!AER-DAT4", "a recording in the format AEDAT 4"),
    (b"% Da", "a recording in the .dat format of Prophesee"),
    (b"MATLAB 5.0 MAT-file", "a MATLAB file (.mat)"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file, as are netx networks of lava-dl and MATLAB files from version 7.3 on"),
    (b"<!DOCTYPE", "a web page, so the download failed"),
    (b"<html", "a web page, so the download failed"),
    (b"\x80", "a Python pickle, as torch wrote its checkpoints once"),
)


def known_format(begin: bytes | Path) -> str:
    """Return a sentence that says what begins so, with a space before it; empty if that is not known.

    Parameters
    ----------
    begin : the first bytes of a file, 32 or more, or the file.
    """
    if isinstance(begin, Path):
        content = b""
        with contextlib.suppress(OSError), open(begin, "rb") as file:
            content = file.read(32)
    else:
        content = begin
    return next((f" It is {name}." for start, name in _BEGINNINGS if content.startswith(start)), "")
