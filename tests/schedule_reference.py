"""How Machete's and Marlin's thread blocks share K, written from the sources' view: unit by unit, block by block.

The plans work the other way round, tile by tile. Both must find the same pieces.
"""

from collections import defaultdict

Pieces = dict[tuple[int, int], list[tuple[int, int]]]
"""(row tile, column tile) -> pieces [first k-tile, last k-tile + 1), ascending."""

SHORT = 8  # k-tiles: no unit of Machete gets less of a tile


def machete(m: int, n: int, k: int, tile: tuple[int, int, int], sms: int) -> Pieces:
    """Every work unit of CUTLASS's stream-K scheduler; tile = (N, M, cluster size along N)."""
    tile_n, tile_m, cluster = tile
    k_tiles, columns, rows = k // 64, -(-n // tile_n), -(-m // tile_m)
    columns = -(-columns // cluster) * cluster
    along_columns = rows > columns  # the direction that neighbouring indices run along
    wave = sms if cluster == 1 else min(sms, sms // 18 * (18 - 18 % cluster) + (sms % 18) // cluster * cluster)
    outputs = rows * columns
    full, waves = divmod(outputs, wave)[0], -(-outputs // wave)
    shared = outputs - max(full - 1, 0) * wave
    if full == waves or k_tiles <= SHORT or 2 * (outputs % wave) >= wave:
        shared = 0
    shared -= shared % cluster
    units = min(wave, k_tiles * shared // SHORT // cluster * cluster)
    pieces: Pieces = defaultdict(list)

    def place(cluster_tile: int, first: int, last: int) -> None:
        if along_columns:
            row, column = divmod(cluster_tile, columns // cluster)
        else:
            column, row = divmod(cluster_tile, rows)
        for member in range(cluster):
            pieces[row, column * cluster + member].append((first, last))

    if shared == 0 or units == 0:
        for t in range(outputs // cluster):
            place(t, 0, k_tiles)
        return {key: sorted(value) for key, value in pieces.items()}
    if units > shared and units % shared == 0:
        splits = units // shared
        for t in range(outputs // cluster):
            at = 0
            for s in range(splits):
                length = k_tiles // splits + (s < k_tiles % splits)
                place(t, at, at + length)
                at += length
        return {key: sorted(value) for key, value in pieces.items()}

    def fits(groups: int) -> bool:
        per_unit = shared // cluster // groups * cluster * k_tiles // (units // groups)
        return units // cluster % groups == 0 and per_unit >= SHORT

    most = min(SHORT, columns // cluster if along_columns else rows)
    ideal = [g for g in range(most, 1, -1) if fits(g) and shared // cluster % g == 0]
    groups = (ideal or [g for g in range(most, 1, -1) if fits(g)] or [1])[0]
    for unit in range(units // cluster):
        index, group = divmod(unit, groups)
        tiles = shared // cluster // groups + (group < shared // cluster % groups)
        work = tiles * cluster * k_tiles
        share, rest = divmod(work, units // groups)
        larger = rest // cluster
        start = share * index + min(index, larger)
        end = start + share + (index < larger)
        ends = []
        for at in (start, end):
            inside = at % k_tiles
            ends.append(at - inside if inside < SHORT else at + k_tiles - inside if k_tiles - inside < SHORT else at)
        at = ends[0]
        while at < ends[1]:
            tile_in_group = at // k_tiles
            last = min(ends[1], (tile_in_group + 1) * k_tiles)
            place(tile_in_group * groups + group, at % k_tiles, last - tile_in_group * k_tiles)
            at = last
    for t in range(shared // cluster, outputs // cluster):
        place(t, 0, k_tiles)
    return {key: sorted(value) for key, value in pieces.items()}


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
