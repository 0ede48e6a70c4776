"""FFDNet's keys, and the fields that its shapes show."""

from collections.abc import Mapping

from rvrt_jax.weights.mapping import Family, Shapes, Table, count, module

_MARK = "model.0.weight"


def _table(fields: Mapping) -> Table:
    # Every second entry of PyTorch's list of layers is a ReLU.
    convs = range(fields["num_conv"])
    return Table(
        tuple(row for i in convs for row in module(f"model.{2 * i}", f"conv_{i}", "conv2d"))
    )


def _fields(shapes: Shapes) -> dict:
    return {
        "num_feat": shapes[_MARK][0],
        "num_conv": count(shapes, r"model\.(\d+)\.weight"),
    }


FAMILY = Family(mark=_MARK, table=_table, fields=_fields, shown_by_shapes=True)
