"""BasicVSR's keys, and the fields that its shapes show."""

from collections.abc import Mapping

from rvrt_jax.weights import spynet
from rvrt_jax.weights.mapping import Family, Shapes, Table, count, module

_MARK = "backward_trunk.main.0.weight"
_ROWS = (
    *module("{direction}_trunk.main.0", "{direction}/conv", "conv2d"),
    *module("{direction}_trunk.main.2.{i}.conv1", "{direction}/block_{i}/conv1", "conv2d"),
    *module("{direction}_trunk.main.2.{i}.conv2", "{direction}/block_{i}/conv2", "conv2d"),
    *(
        row
        for name in ("fusion", "upconv1", "upconv2", "conv_hr", "conv_last")
        for row in module(name, name, "conv2d")
    ),
)


def _table(fields: Mapping) -> Table:
    return Table((*spynet.rows("spynet.", "spynet/"), *_ROWS), spynet.buffers("spynet."))


def _fields(shapes: Shapes) -> dict:
    return {
        "num_feat": shapes[_MARK][0],
        "num_block": count(shapes, r"backward_trunk\.main\.2\.(\d+)\.conv1\.weight"),
    }


FAMILY = Family(mark=_MARK, table=_table, fields=_fields)
