"""FFDNet's keys, alone and as a part of RVRT, and the fields that its shapes show."""

from collections.abc import Mapping

from rvrt_jax.weights.mapping import Family, Row, Shapes, Table, count, module

_MARK = "model.0.weight"


def rows(key: str, path: str, *, num_conv: int) -> tuple[Row, ...]:
    """Returns the rows of an FFDNet whose keys and paths begin so."""
    found = []
    for i in range(num_conv):  # every second entry of PyTorch's list of layers is a ReLU
        found += module(f"{key}model.{2 * i}", f"{path}conv_{i}", "conv2d")
    return tuple(found)


def _table(fields: Mapping) -> Table:
    return Table(rows("", "", num_conv=fields["num_conv"]))


def _fields(shapes: Shapes) -> dict:
    return {
        "num_feat": shapes[_MARK][0],
        "num_conv": count(shapes, r"model\.(\d+)\.weight"),
    }


FAMILY = Family(mark=_MARK, table=_table, fields=_fields, shown_by_shapes=True)
