"""How Machete's and Marlin's thread blocks share K, written from the sources' view: unit by unit, block by block.

The plans work the other way round, tile by tile. Both must find the same pieces.
"""

from collections import defaultdict
from itertools import accumulate

Pieces = dict[tuple[int, int], list[tuple[int, int]]]
"""(row tile, column tile) -> pieces [first k-tile, last k-tile + 1), ascending."""

SHORT = 8  # k-tiles: no unit of Machete gets less of a tile


def machete(m: int, n: int, k: int, tile: tuple[int, int, int], sms: int) -> Pieces:
    """Every work unit of CUTLASS's stream-K scheduler; tile = (N, M, cluster size along N)."""
    tile_n, tile_m, cluster = tile
    k_tiles, columns, rows = k // 64, -(-n // tile_n), -(-m // tile_m)
    columns = -(-columns // cluster) * cluster
    along_columns = rows > columns  # the direction that neighbouring indices run along
    outputs = rows * columns
    shared, units = shared_tiles(outputs, k_tiles, cluster, sms)
    pieces: Pieces = defaultdict(list)

    def place(cluster_tile: int, first: int, last: int) -> None:
        if along_columns:
            row, column = divmod(cluster_tile, columns // cluster)
        else:
            column, row = divmod(cluster_tile, rows)
        for member in range(cluster):
            pieces[row, column * cluster + member].append((first, last))

    if shared == 0 or units == 0:
        cuts = [(t, 0, k_tiles) for t in range(outputs // cluster)]
    elif units > shared and units % shared == 0:
        cuts = [(t, *cut) for t in range(outputs // cluster) for cut in even_cuts(k_tiles, units // shared)]
    else:
        most = min(SHORT, columns // cluster if along_columns else rows)
        cuts = stream_k(shared // cluster, units // cluster, k_tiles, cluster, most)
        cuts += [(t, 0, k_tiles) for t in range(shared // cluster, outputs // cluster)]
    for cut in cuts:
        place(*cut)
    return {key: sorted(value) for key, value in pieces.items()}


def shared_tiles(outputs: int, k_tiles: int, cluster: int, sms: int) -> tuple[int, int]:
    """Output tiles that several units share, and how many units; the others have one unit each."""
    wave = sms if cluster == 1 else min(sms, sms // 18 * (18 - 18 % cluster) + (sms % 18) // cluster * cluster)
    full, waves = divmod(outputs, wave)[0], -(-outputs // wave)
    shared = outputs - max(full - 1, 0) * wave
    if full == waves or k_tiles <= SHORT or 2 * (outputs % wave) >= wave:
        shared = 0
    shared -= shared % cluster
    return shared, min(wave, k_tiles * shared // SHORT // cluster * cluster)


def even_cuts(k_tiles: int, splits: int) -> list[tuple[int, int]]:
    """[first, last) of parts that differ by one k-tile at most, the longer ones first."""
    lengths = [k_tiles // splits + (s < k_tiles % splits) for s in range(splits)]
    ends = list(accumulate(lengths))
    return [(end - length, end) for end, length in zip(ends, lengths, strict=True)]


def stream_k(tiles: int, units: int, k_tiles: int, cluster: int, most: int) -> list[tuple[int, int, int]]:
    """(cluster tile, first, last) of units that walk along K and on into the next tile; both counted in clusters."""

    def fits(groups: int) -> bool:
        per_unit = tiles // groups * cluster * k_tiles // (units * cluster // groups)
        return units % groups == 0 and per_unit >= SHORT

    ideal = [g for g in range(most, 1, -1) if fits(g) and tiles % g == 0]
    groups = (ideal or [g for g in range(most, 1, -1) if fits(g)] or [1])[0]
    cuts = []
    for unit in range(units):
        index, group = divmod(unit, groups)
        work = (tiles // groups + (group < tiles % groups)) * cluster * k_tiles
        share, rest = divmod(work, units * cluster // groups)
        larger = rest // cluster
        start = share * index + min(index, larger)
        at, end = (whole_ends(place, k_tiles) for place in (start, start + share + (index < larger)))
        while at < end:
            own = at // k_tiles
            last = min(end, (own + 1) * k_tiles)
            cuts.append((own * groups + group, at % k_tiles, last - own * k_tiles))
            at = last
    return cuts


def whole_ends(at: int, k_tiles: int) -> int:
    """A cut too near to a tile's end is moved onto it."""
    inside = at % k_tiles
    return at - inside if inside < SHORT else at + k_tiles - inside if k_tiles - inside < SHORT else at


def marlin(rows: int, n: int, k: int, group: int, tile: tuple[int, int], sms: int) -> Pieces:
    """Every thread block of one launch of at most 64 rows or a multiple of 64; tile = (K, N)."""
    tile_k, tile_n = tile
    k_tiles, n_tiles, parallel = k // tile_k, n // tile_n, max(1, rows // 64)
    tiles = parallel * n_tiles
    second = tiles
    if tiles > sms:
        second = tiles % sms
        second += sms if second * 3 <= sms else 0
    stripe = -(-k_tiles * second // sms)
    if group != k and group >= tile_k:
        stripe = -(-stripe // (group // tile_k)) * (group // tile_k)
    pieces: Pieces = defaultdict(list)
    for block in range(sms):
        for tile_index in range(block, tiles - second, sms):  # whole tiles first
            pieces[divmod(tile_index, n_tiles)].append((0, k_tiles))
        at, end = block * stripe, min((block + 1) * stripe, second * k_tiles)
        while at < end:
            own, inside = divmod(at, k_tiles)
            count = min(end - at, k_tiles - inside)
            pieces[divmod(own + tiles - second, n_tiles)].append((inside, inside + count))
            at += count
    return {key: sorted(value) for key, value in pieces.items()}
