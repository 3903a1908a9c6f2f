"""Loads the special-function tables that the package ships (see ``data/README.md``), once per process."""

import functools
import hashlib
import lzma
from importlib import resources

from qforensics import _core

_SHA256 = {
    "ex2_23.i8.xz": "4bb6107620649ba20a51600c0571921304df807c5a1e84bd14815c250a565ea5",
    "rcp.i8.xz": "d58d34033d6f56987fd862ecc5677f2d0d7b65f8101bdbdd5d083c83ba992655",
    "rsqrt.i8.xz": "c9570f25429907993ab1083f32de42d5be7e994cda6687cb3b957a9a2706f533",
    "lg2.i32planes.xz": "73d16e3033f5c2c9cb33db5574ae8b2741f86c5d64fdd2f178821e1fa63513a4",
    "lg2_below1.i32planes.xz": "84ad7022d0264baec68f4e11b078ef06bb9c42d899f12cc773f46aa6f1b288be",
}
_ENTRIES = 1 << 23


def _differences(name: str, size: int) -> bytes:
    packed = (resources.files("qforensics") / "data" / name).read_bytes()
    found = hashlib.sha256(packed).hexdigest()
    if found != _SHA256[name]:
        raise ValueError(f"data/{name}: expected SHA-256 {_SHA256[name]}, found {found}; the installation is damaged")
    data = lzma.LZMADecompressor().decompress(packed, size + 1)
    if len(data) != size:
        raise ValueError(f"data/{name}: expected {size} bytes of differences, found {len(data)} or more")
    return data


@functools.cache
def _tables() -> _core.SfuTables:
    row = _ENTRIES - 1
    return _core.SfuTables(
        ex2=_differences("ex2_23.i8.xz", row),
        rcp=_differences("rcp.i8.xz", row),
        rsqrt=_differences("rsqrt.i8.xz", 2 * row),
    )


@functools.cache
def _tables_with_lg2() -> _core.SfuTables:
    size = 4 * (_ENTRIES - 1)
    # one half after the other: each passes through tables of 70 MB
    above = _tables().with_lg2(_differences("lg2.i32planes.xz", size), below=False)
    return above.with_lg2(_differences("lg2_below1.i32planes.xz", size), below=True)


def sfu_tables(*, lg2: bool = False) -> _core.SfuTables:
    """The unit's ex2, rcp and rsqrt (4 MB in memory), and lg2 (22 MB and a second more) where asked for.

    Returns
    -------
    _core.SfuTables
        Shared by all callers; never changes.
    """
    return _tables_with_lg2() if lg2 else _tables()
