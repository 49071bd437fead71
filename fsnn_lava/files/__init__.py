"""Files that are written whole or not at all, and the folder that a run leaves."""

from fsnn_lava.files.atomic_write import not_writable, put_in_place, temporary_beside, write_whole
from fsnn_lava.files.run_folder import new_run_folder, newest_run, write_json, write_text

__all__ = [
    "new_run_folder",
    "newest_run",
    "not_writable",
    "put_in_place",
    "temporary_beside",
    "write_json",
    "write_text",
    "write_whole",
]
