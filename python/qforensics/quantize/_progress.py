"""How long work says where it is."""

from collections.abc import Callable

__all__ = ["Progress"]

#: Called with what is being done, how many steps are done, and how many there are.
Progress = Callable[[str, int, int], None]
