"""Statistics of rows that are looked up in a table: those of its product with one-hot vectors."""

from collections.abc import Collection

import jax.numpy as jnp

from spartax.records import Array, Path

LOOKED_UP = frozenset({"moments", "means", "magnitudes", "peaks"})  # statistics that lookups in a table have
MOST_ROWS = 8192  # of a table whose moments are wanted: 256 MiB


def check_table(path: Path, rows: int, needs: Collection[str]) -> None:
    """Refuse statistics that lookups in a table of so many rows do not have, or that would be too large."""
    other = sorted(set(needs) - LOOKED_UP)
    if other:
        raise ValueError(f"{path}: its rows are looked up, and a lookup has no {', '.join(other)}; leave it out.")
    if "moments" in needs and rows > MOST_ROWS:
        raise ValueError(
            f"{path}: the moments of lookups in {rows} rows would be a matrix {rows} x {rows}; at most {MOST_ROWS} "
            "rows are allowed. Leave it out by the rule, or take a method that needs no moments."
        )


def one_hot_sums(counts: Array, needs: frozenset[str]) -> dict[str, Array]:
    """Sums over one-hot vectors, `counts [V]` of each: what `collect` adds up."""
    sums = {"rows": jnp.sum(counts), "uses": jnp.ones(()), "means": counts, "magnitudes": counts}
    sums["peaks"] = jnp.minimum(counts, 1)
    if "moments" in needs:
        sums["moments"] = jnp.diag(counts)
    return {name: sums[name] for name in ("rows", "uses", *needs)}
