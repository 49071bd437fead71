"""AEDAT4, the file format of event cameras: the header is checked here, events are read by tonic.

A file is the line ``#!AER-DAT4.0``, a header and packets. The header is a FlatBuffer whose text, XML, says
what each stream holds. A packet is the number of its stream, its length (4 bytes each) and a FlatBuffer with some of
the stream's data, compressed or not. All numbers are little-endian, and each FlatBuffer has its length before it.
"""

import struct
import tempfile
from pathlib import Path

from fsnn_lava.datasets.input_coding import Array
from fsnn_lava.errors import DatasetError, MissingDependencyError
from fsnn_lava.files import known_format

MAGIC = b"#!AER-DAT4.0\r\n"


def events_from_aedat4(content: bytes, source: str) -> Array:
    """Return the events of a file in its order: fields t (microseconds), x (column), y (row), on (true is ON).

    Read by ``tonic.io.read_aedat4``, which takes the stream of events of the lowest number.

    Parameters
    ----------
    content : of the whole file.
    source : where it comes from, for messages.

    Raises
    ------
    DatasetError : if the file is damaged, no AEDAT4 or without events.
    MissingDependencyError : if tonic, or aedat which it uses for these files, is absent.
    """
    try:
        import aedat  # noqa: F401
        from tonic.io import read_aedat4
    except ImportError as error:
        raise MissingDependencyError(
            f"{source}: events in AEDAT4 files are read by tonic and aedat; install them with: "
            'pip install "fsnn-lava[events]"'
        ) from error
    _check_header(content, source)
    with tempfile.TemporaryDirectory() as folder:  # the decoder takes nothing but a file's name
        path = Path(folder) / "recording.aedat4"
        path.write_bytes(content)
        try:
            events: Array = read_aedat4(str(path))
        except BaseException as error:
            # A panic of the decoder is no Exception and has no name to import.
            if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
                raise
            raise DatasetError(f"{source} is damaged or holds no events: {error}. Get it again.") from error
    return events


def _check_header(content: bytes, source: str) -> None:
    """Raise unless the header's text can be found: where it cannot, the decoder may end the whole process."""
    if not content.startswith(MAGIC):
        raise DatasetError(
            f"{source} is no AEDAT4 file: it begins with {content[:14]!r}, expected {MAGIC!r}."
            f"{known_format(content[:32])} Get it again."
        )
    try:
        (length,) = struct.unpack_from("<I", content, len(MAGIC))
        header = content[len(MAGIC) + 4 :][:length]
        (table,) = struct.unpack_from("<I", header, 0)
        description = table - struct.unpack_from("<i", header, table)[0]
        position_at, text_at = (table + at for at in struct.unpack_from("<2H", header, description + 6))
        position = struct.unpack_from("<q", header, position_at)[0] if position_at > table else -1
        begin = text_at + struct.unpack_from("<I", header, text_at)[0]
        (size,) = struct.unpack_from("<I", header, begin)
        text = header[begin + 4 :][:size]
        if len(text) != size:
            raise ValueError("it is cut short")
        text.decode("utf-8")
    except (struct.error, ValueError) as error:
        raise DatasetError(f"{source}: the header is damaged: {error}. Get it again.") from error
    if position > len(content):
        raise DatasetError(
            f"{source} is cut short: it has {len(content)} bytes, its packets end at {position}. Get it again."
        )
