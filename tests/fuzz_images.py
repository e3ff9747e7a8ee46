"""Hostile MIPs."""
import os
from types import SimpleNamespace

import numpy as np
from fuzz_harness import REFUSED, SAME, Case, mutated, no_file, pick

from common.mips import read_image
from dataset import body_box

SHAPE = (64, 40)
ROW = {"matrix_size_1": SHAPE[0], "matrix_size_2": SHAPE[1], "row": 2}


def body(rng, shape=SHAPE):
    """A smooth body with a few hot spots, SUV."""
    rows, columns = np.indices(shape)
    image = 1.5 * np.exp(-((rows - shape[0] / 2) / (0.4 * shape[0])) ** 4 - ((columns - shape[1] / 2) / 12) ** 4)
    for _ in range(3):
        at = rng.uniform(0.3, 0.7, 2) * shape
        image += rng.uniform(1, 20) * np.exp(-((rows - at[0]) ** 2 + (columns - at[1]) ** 2) / 8)
    return image.astype("<f4")


def _read(name):
    image = read_image(SimpleNamespace(filename=name, **ROW), ".")
    body_box(image, name)
    return image


def mip(rng, folder):
    image = body(rng)
    kind = pick(rng, ["right", "npy"] * 2 + ["values", "form"] * 3 + ["bytes", "no file"])
    path = folder / pick(rng, ["a.bin", "a.npy"])
    if kind == "right":
        if path.suffix == ".bin":
            image.tofile(path)
            wanted = image
        else:
            dtype = pick(rng, ["<f4", ">f4", "<f8", ">f8", "<f2", "<i2", "u1"])
            wanted = image.round().astype(dtype) if dtype[-2] in "iu" or dtype == "u1" else image.astype(dtype)
            np.save(path, np.asfortranarray(wanted) if rng.random() < 0.5 else wanted)
        return Case(f"right {path.suffix}", lambda: _read(path.name), SAME,
                    lambda found: found.dtype == np.float32 and np.array_equal(found, wanted.astype("f4")))
    if kind == "values":
        said, image = pick(rng, [
            ("NaN", _with(image, np.nan, rng)), ("infinite", _with(image, np.inf, rng)), ("negative", -image - 1),
            ("all zero", image * 0), ("all 1e30", image * 0 + np.float32(1e30)), ("Bq/ml", image * 5000),
            ("one 1e30", _with(image, 1e30, rng)), ("one -50", _with(image, -50, rng)), ("faint", image * 0.01)])
        image.tofile(path) if path.suffix == ".bin" else np.save(path, image)
        return Case(said, lambda: _read(path.name), REFUSED)
    if kind == "form":
        path = folder / "a.bin"
        said, content = pick(rng, [
            ("big-endian", image.astype(">f4").tobytes()), ("float64", image[:32].astype("<f8").tobytes()),
            ("float64 of whole numbers", image[:32].round().astype("<f8").tobytes()),
            ("int32", image.round().astype("<i4").tobytes()), ("int16", image.astype("<i2").tobytes()),
            ("swapped", body(rng, SHAPE[::-1]).tobytes()), ("cut", image.tobytes()[:-int(rng.integers(1, 9999))]),
            ("longer", image.tobytes() + bytes(int(rng.integers(1, 99)))), ("random", rng.bytes(image.nbytes)),
            ("text", (b"%.3f\n" % rng.uniform() * 9999)[:image.nbytes]), ("letters", b"BCABAB" * 1706 + b"ABCA")])
        path.write_bytes(content)
        return Case(said, lambda: _read(path.name), REFUSED)
    if kind == "bytes":
        image.tofile(path) if path.suffix == ".bin" else np.save(path, image)
        path.write_bytes(mutated(path.read_bytes(), rng))
        return Case("bytes", lambda: _read(path.name))
    if kind == "no file":
        return Case(no_file(path, rng), lambda: _read(path.name), REFUSED)
    path = folder / "a.npy"
    said = pick(rng, ["structured", "objects", "texts", "complex", "archive", "shape", "lies", "header", "version",
                      "dates"])
    if said == "archive":
        with open(path, "wb") as file:
            np.savez(file, a=image)
    elif said in ("lies", "header", "version"):
        text = {"lies": f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({10 ** int(rng.integers(3, 20))}, 40)}}",
                "header": "(" * int(rng.integers(1, 60000)), "version": "{}"}[said].encode() + b"\n"
        version = bytes(rng.integers(0, 5, 2, np.uint8)) if said == "version" else b"\1\0"
        path.write_bytes(b"\x93NUMPY" + version + len(text).to_bytes(2, "little") + text + image.tobytes())
    else:
        np.save(path, {"structured": np.zeros(SHAPE, "f4,i4"), "texts": image.astype("U6"), "complex": image + 0j,
                       "objects": np.array([_Runs() for _ in range(image.size)], object).reshape(SHAPE),
                       "shape": image.T, "dates": image.astype("<M8[s]")}[said], allow_pickle=True)
    return Case(f".npy: {said}", lambda: _read(path.name), REFUSED)


def _with(image, value, rng):
    image = image.copy()
    image[tuple(rng.integers(SHAPE))] = value
    return image


class _Runs:
    def __reduce__(self):
        return os.mkdir, ("canary",)
