"""Helpers without torch: objects by name, attribute dictionaries, downloads with a cache, and complete files.

No module of this package imports torch.
"""

from dnnlib.errors import UserError
from dnnlib.files import LineFile, append_line, atomic_open, atomic_path, remove_temporary, write_json
from dnnlib.streams import Command, SteadyStream
from dnnlib.util import (
    EasyDict,
    Logger,
    ask_yes_no,
    call_func_by_name,
    construct_class_by_name,
    format_time,
    get_module_from_obj_name,
    get_obj_by_name,
    is_url,
    make_cache_dir_path,
    open_url,
)

__all__ = [
    "Command",
    "EasyDict",
    "LineFile",
    "Logger",
    "SteadyStream",
    "UserError",
    "append_line",
    "ask_yes_no",
    "atomic_open",
    "atomic_path",
    "call_func_by_name",
    "construct_class_by_name",
    "format_time",
    "get_module_from_obj_name",
    "get_obj_by_name",
    "is_url",
    "make_cache_dir_path",
    "open_url",
    "remove_temporary",
    "write_json",
]
