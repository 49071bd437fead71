"""Files that are written whole or not at all, the folder that a run leaves, and the user's cache."""

from fsnn_lava.files.atomic_write import (
    not_writable as not_writable,
    put_in_place as put_in_place,
    temporary_beside as temporary_beside,
    write_whole as write_whole,
)
from fsnn_lava.files.known_formats import known_format as known_format
from fsnn_lava.files.run_folder import (
    CACHE_VARIABLE as CACHE_VARIABLE,
    SETTINGS as SETTINGS,
    new_run_folder as new_run_folder,
    newest_run as newest_run,
    user_cache as user_cache,
    write_json as write_json,
    write_text as write_text,
)
