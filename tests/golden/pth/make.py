"""Makes the .pth files beside it. Needs PyTorch (they were made with 2.13), which the tests do not.

Run it in this folder: python make.py
"""

import collections
import pathlib

import torch

base = torch.arange(24, dtype=torch.float32)
linear = torch.nn.Linear(3, 2)
with torch.no_grad():
    linear.weight.copy_(torch.arange(6.0).reshape(2, 3) / 4)
    linear.bias.copy_(torch.tensor([-1.0, 2.5]))
state = collections.OrderedDict(
    float32=base.reshape(2, 3, 4) / 8,
    float16=(base / 8).half(),
    bfloat16=(base / 8).bfloat16(),
    float64=base.double() / 3,
    int64=torch.arange(-3, 3),
    int32=torch.arange(4, dtype=torch.int32),
    uint8=torch.arange(5, dtype=torch.uint8),
    bool=torch.tensor([True, False, True]),
    transposed=base.reshape(4, 6).t(),
    shared_head=base[:6],
    shared_tail=base[6:].reshape(3, 6)[:, ::2],
    expanded=base[2:5].reshape(3, 1).expand(3, 4),
    scalar=torch.tensor(7.5),
    empty=torch.zeros(0, 3),
    parameter=torch.nn.Parameter(torch.arange(3.0)),
)
for name, zipped in (("zip", True), ("legacy", False)):
    options = {"_use_new_zipfile_serialization": zipped}
    torch.save({"params": state, "iter": 3}, f"{name}.pth", **options)
    torch.save(linear.state_dict(), f"bare_{name}.pth", **options)
one, zero = {"x": torch.ones(2)}, {"x": torch.zeros(2)}
torch.save({"params": one, "params_ema": zero}, "two_entries.pth")
torch.save({"params": one, "path": pathlib.PurePosixPath("a")}, "path.pth")
torch.save(linear, "module.pth")
torch.jit.save(torch.jit.script(torch.nn.ReLU()), "script.pth")
