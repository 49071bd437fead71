"""Files that are written whole or not at all, the folder that a run leaves, and the user's cache."""

from fsnn_lava.files.atomic_write import not_writable, put_in_place, temporary_beside, write_whole
from fsnn_lava.files.cache_folder import CACHE_VARIABLE, user_cache
from fsnn_lava.files.known_formats import known_format
from fsnn_lava.files.run_folder import new_run_folder, newest_run, write_json, write_text

__all__ = [
    "CACHE_VARIABLE",
    "known_format",
    "new_run_folder",
    "newest_run",
    "not_writable",
    "put_in_place",
    "temporary_beside",
    "user_cache",
    "write_json",
    "write_text",
    "write_whole",
]
