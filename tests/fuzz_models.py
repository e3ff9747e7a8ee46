"""Hostile checkpoints, and zips of models."""
import functools
import io
import json
import os
import pickle
import subprocess
import zipfile

import numpy as np
import safetensors.torch
import torch
from fuzz_harness import ANY, REFUSED, SAME, Case, mutated, no_file, pick

import utils
from common.digests import COLUMNS
from common.model_files import checkpoints_in
from inference.prediction import best_runs

PATH = "checkpoint_split0_run1.pth"
ODD = [None, True, -1, 10**30, 1.5, float("nan"), float("inf"), "", "x", b"\xff", [], [[]], {}, {"a": 1}, {1: 2},
       torch.ones(2), torch.tensor(float("nan")), (), {"norm": 1}, [None] * 3, "9" * 5000]


@functools.cache
def content():
    """A checkpoint as train.py writes it, but that all parameters lie in one small storage: 5 MB, not 85."""
    generator = torch.Generator().manual_seed(1)
    shapes = {name: value.shape for name, value in utils.ResNet34().state_dict().items()}
    values = torch.empty(max(shape.numel() for shape in shapes.values()), dtype=torch.float16).uniform_(
        0.005, 0.03, generator=generator)
    state = {name: torch.tensor(7) if name.endswith("tracked") else values[:shape.numel()].reshape(shape)
             for name, shape in shapes.items()}
    digests = {"salt": "00", "id_keys": [""], **{name: {column: [] for column in COLUMNS} for name in ("train", "val")}}
    return {"epoch": 3, "auc": 0.75, "state_dict": state, "optimizer": {}, "lr_scheduler": {}, "early_stopping": {},
            "input": {"frame": (96, 64), "norm": (1.0, 2.0), "pool": 1, "spacing_mm": 3.27, "crop_bodies": False,
                      "views": ("cor", "sag"), "suv_type": "bw", "box": "suv"},
            "args": {"lr": 0.1}, "model": {"cls_arch": "simple"}, "trained_on": digests, "version": "1.0.0"}


@functools.cache
def saved():
    """The same as the bytes of its file."""
    return _saved(content())


def _saved(value, **options):
    buffer = io.BytesIO()
    torch.save(value, buffer, **options)
    return buffer.getvalue()


def _is_right(found):
    model, said = found
    state = model.state_dict()
    return all(torch.equal(state[name], value.to(state[name].dtype)) for name, value in content()["state_dict"].items()
               ) and (said["epoch"], said["auc"], said["input"]["frame"]) == (3, 0.75, (96, 64))


class Runs:
    """Unpickled as code it makes the canary."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def _code(rng):
    command = "touch canary"
    return pick(rng, [
        Runs(os.system, command), Runs(eval, f"__import__('os').system('{command}')"),
        Runs(exec, "open('canary', 'w')"), Runs(subprocess.getoutput, command), Runs(os.mkdir, "canary"),
        Runs(torch.load, "other.pth"), Runs(getattr, "x", "upper"), functools.partial(os.mkdir, "canary"),
        Runs(io.open, "canary", "w"), os.mkdir, torch.nn.Linear(2, 2), Runs(np.save, "canary", 1),
        Runs(torch.save, 1, "canary"), np.ones(3)])


def _nested(value, depth):
    for _ in range(depth):
        value = [value] * 2
    return value


def checkpoint(rng, folder):
    path, whole, expected = folder / PATH, content(), REFUSED
    state = dict(whole["state_dict"])
    kind = pick(rng, ["right", "flip", "bytes", "cut", "no file", "header", *["code", "parameter", "said"] * 2])
    said = kind
    if kind == "right":
        said = pick(rng, ["as it is", "module.", "resnet.", "a.b.c.", "state_dict alone"])
        prefix = "" if said[-1] != "." else said
        path.write_bytes(saved() if said == "as it is" else _saved(
            whole | {"state_dict": {prefix + name: value for name, value in state.items()}}))
        return Case(f"right: {said}", lambda: utils.load_model(path), SAME, _is_right)
    if kind in ("flip", "bytes", "cut"):
        changed = bytearray(saved())
        if kind == "flip":
            for at in rng.integers(len(changed), size=int(rng.integers(1, 4))):
                changed[at] ^= 1 << int(rng.integers(8))
        changed = changed[:int(rng.integers(len(changed)))] if kind == "cut" else mutated(
            bytes(changed), rng) if kind == "bytes" else changed
        path.write_bytes(changed)
        return Case(kind, lambda: utils.load_model(path), ANY, _is_right)
    if kind == "code":
        value = _code(rng)
        said = f"code: {type(value).__name__}"
        place = pick(rng, [value, {"state_dict": value}, whole | {"auc": value}, {"state_dict": state | {"x": value}},
                           _nested(value, 9)])
        form = pick(rng, ["zip", "legacy", "pickle"])
        path.write_bytes(pickle.dumps(place, int(rng.integers(5))) if form == "pickle" else _saved(
            place, _use_new_zipfile_serialization=form == "zip"))
    elif kind == "parameter":
        said, whole = _wrong_state(rng, state, whole)
        path.write_bytes(_saved(whole))
    elif kind == "said":
        name = pick(rng, ["epoch", "auc", "args", "model", "input", "trained_on", "norm", "frame", "spacing_mm", "pool",
                          "views", "box"])
        value = pick(rng, ODD)
        said, expected = f"{name}: {str(value)[:20]!r}", ANY
        inner = {"input": whole["input"] | {name: value}} if name in whole["input"] else {name: value}
        path.write_bytes(_saved(whole | inner))
    elif kind == "header":
        said, expected = _headers(rng, path, state), REFUSED
        path = path if path.exists() else path.with_suffix(".safetensors")
    else:
        said = no_file(path, rng)
    return Case(said, lambda: utils.load_model(path), expected)


def _wrong_state(rng, state, whole):
    name = pick(rng, ["fc.weight", "fc.bias", "features.0.weight", "features.1.running_var",
                      "features.4.0.conv1.weight"])
    value = state[name].float().clone()
    flat, shape = value.view(-1), value.shape
    at = int(rng.integers(len(flat)))
    said = pick(rng, ["NaN", "infinite", "variance", "shape", "gone", "whole", "complex", "expanded", "sparse", "meta",
                      "huge", "number", "text", "empty", "name", "two"])
    if said in ("NaN", "infinite", "huge"):
        flat[at] = {"NaN": float("nan"), "infinite": float("-inf")}.get(said, 0)
        value = value.double() * 1e300 * 1e9 if said == "huge" else value
    elif said == "variance":
        name, value = "features.1.running_var", -torch.ones(64)
    elif said == "gone":
        return said, whole | {"state_dict": {each: v for each, v in state.items() if each != name}}
    elif said == "name":
        return said, whole | {"state_dict": state | {7: value}}
    elif said == "two":
        return said, whole | {"state_dict": state | {f"module.{name}": value}}
    else:
        value = {"shape": value[:1], "whole": value.int(), "complex": value + 0j, "number": 3, "text": "x",
                 "expanded": torch.ones(1).expand(10**6, 10**6), "sparse": value.reshape(len(value), -1).to_sparse(),
                 "meta": torch.empty(shape, device="meta"), "empty": torch.empty(0)}[said]
    return f"{name} {said}", whole | {"state_dict": state | {name: value}}


def _headers(rng, path, state):
    """Files whose headers lie: .safetensors and zips."""
    said = pick(rng, ["10 GB", "long", "deep", "offsets", "metadata", "packed", "two records", "no records", "jit"])
    tensors = path.with_suffix(".safetensors")
    small = safetensors.torch.save({"fc.weight": torch.ones(2, 512)}, {"deauville": "{}"})
    if said == "10 GB":
        header = json.dumps({"fc.weight": {"dtype": "F32", "shape": [10**5, 10**5], "data_offsets": [0, 4 * 10**10]}})
        tensors.write_bytes(len(header).to_bytes(8, "little") + header.encode() + bytes(100))
    elif said == "long":
        tensors.write_bytes((10 ** int(rng.integers(3, 19))).to_bytes(8, "little") + small[8:])
    elif said in ("deep", "metadata"):
        text = "[" * 50_000 if said == "deep" else pick(rng, ["[]", "3", '{"input": []}', '{"epoch": NaN}', "\0", "{"])
        tensors.write_bytes(safetensors.torch.save({"fc.weight": torch.ones(2, 512)}, {"deauville": text}))
    elif said == "offsets":
        tensors.write_bytes(small.replace(b"[0,4096]", b"[4096,0]"))
    else:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED if said == "packed" else zipfile.ZIP_STORED) as archive:
            for name in {"packed": ["a/data.pkl", "a/version"], "two records": ["a/data.pkl", "b/data.pkl"],
                         "no records": ["a/x"], "jit": ["a/constants.pkl", "a/data.pkl"]}[said]:
                archive.writestr(name, bytes(10**7) if said == "packed" else pickle.dumps({"a": 1}, 2))
    return said


def model_zip(rng, folder):
    """A zip of export_models.py, or nearly."""
    path = folder / "models.zip"
    kind = pick(rng, ["right", "ranking", "ranking", "members", "members", "bytes", "bytes", "no file"])
    state = {"fc.weight": torch.arange(1024, dtype=torch.float32).reshape(2, 512)}
    header = {name: value for name, value in content().items() if name != "state_dict"}
    member = PATH.replace(".pth", ".safetensors")
    files = {"best_run.csv": "split,run,epoch,metric,value,rank\n0,1,3,auc,0.75,1\n",
             member: safetensors.torch.save(state, {"deauville": json.dumps(header)})}
    said, expected = kind, REFUSED
    if kind == "ranking":
        files["best_run.csv"] = said = pick(rng, [
            "", "\0", "split,run\n0,1.7\n", "split,run\n,\n", "a,b\n1,2\n", "split,run,rank\n0,1,x\n0,2\n",
            "split,run\n" + "9" * 400 + ",1\n", "split,run\n../../x,1\n", '"', "split,run\nnan,inf\n"])
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
        if kind == "members":
            said = pick(rng, ["../../canary", "/tmp/canary", "huge", "many", "link"])
            expected = ANY
            if said == "huge":
                archive.writestr("best_run.csv", bytes(1 << 27), zipfile.ZIP_DEFLATED)
            elif said == "many":
                for k in range(5000):
                    archive.writestr(f"{k}", b"")
            else:
                archive.writestr(said, b"x")
    if kind == "bytes":
        path.write_bytes(mutated(path.read_bytes(), rng))
        expected = ANY
    elif kind == "no file":
        said = no_file(path, rng)

    def read():
        runs, _ = best_runs(path)
        return len(checkpoints_in(path)), utils.read_checkpoint(runs[0]["path"])

    def right(found):
        count, said = found
        return count == 1 and torch.equal(said["state_dict"]["fc.weight"], state["fc.weight"]) and said["epoch"] == 3

    return Case(f"zip: {said[:20]!r}", read, SAME if kind == "right" else expected, right)
