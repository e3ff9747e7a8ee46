"""NIfTI and NRRD volumes that hold SUV: alone, in autoPET's tree (PATIENT/STUDY/SUV.nii.gz) or nnU-Net's folders."""
import bz2
import gzip
import math
import os
import re
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from common.files import open_file, replace_file
from preprocessing.dicom_values import Refused, damaged
from preprocessing.geometry import Grid, patient_axes
from preprocessing.suv import POSSIBLE_MEAN, SuvVolume, body_mean, warn_of_mean

SUFFIXES = (".nii", ".nii.gz", ".nrrd")
UNREAD = (".nhdr", ".mha", ".mhd", ".mgz", ".mgh", ".mnc", ".hdr")  # other volumes
NOT_PET = re.compile(r"(.*[_\W])?(ct|ctres|seg|segmentation|masks?|labels?)([_\W].*)?", re.IGNORECASE)  # a name's words
PET_CT = re.compile(r"pet[_\W]ct", re.IGNORECASE)  # of a folder, no CT; a file of this name is the CT of a PET/CT
NNUNET = re.compile(r"images(Tr|Ts)")  # its folders: CASE_0000 is CT, CASE_0001 SUV (autoPET III)
LPS = {"left-posterior-superior": (1, 1, 1), "lps": (1, 1, 1), "right-anterior-superior": (-1, -1, 1),
       "ras": (-1, -1, 1), "left-anterior-superior": (1, -1, 1), "las": (1, -1, 1)}  # NRRD's spaces, to LPS

MOST_RATIO, MOST_SMALL = 100, 1 << 28  # unpacked to packed size; bytes that any packed file may unpack to


def is_volume(path: str) -> bool:
    """Whether a file's name is that of a NIfTI or NRRD volume."""
    return path.lower().endswith(SUFFIXES)


def unread(path: str, in_archive: bool) -> Refused | None:
    """Why a file that may be a volume of SUV, by its name, is not read; None: it is read, or it is none."""
    name = Path(path).name
    if name.lower().endswith(UNREAD):
        return Refused("file", name, "is a volume of a kind that is not read", "write it as .nii.gz")
    if in_archive and is_volume(path) and not NOT_PET.fullmatch(stem(path)):
        return Refused("file", name, "is a volume in an archive, which is not read", "unpack the archive")
    return None


def stem(path: str) -> str:
    """The file's name without the suffix of a volume: a/SUV.nii.gz -> SUV."""
    return re.sub(r"\.(nii|nii\.gz|nrrd)$", "", Path(path).name, flags=re.IGNORECASE)


def suv_volumes(paths: Sequence[str]) -> list[tuple[str, str, str]]:
    """Of the volumes of one folder, those that are SUV by their names.

    Parameters
    ----------
    paths : list of str
        Relative to the searched folder, all of one folder.

    Returns
    -------
    list of (str, str, str)
        Path, name of the study and of the patient (empty where the path does not say).
    """
    parent = Path(paths[0]).parent
    if NNUNET.fullmatch(parent.name):
        cases = [(path, stem(path)[:-5]) for path in paths if stem(path).endswith("_0001")]
        return [(path, case, "_".join(case.split("_")[:2])) for path, case in cases]  # fdg_PATIENT_STUDY_0001
    named = [path for path in paths if stem(path).lower() == "suv"]
    if named and parent.name:
        return [(path, parent.as_posix(), parent.parts[-2:][0]) for path in named]
    if NOT_PET.fullmatch(PET_CT.sub("pet", re.sub("T[rs]$", "", parent.name))):
        return []
    return [(path, str(parent / stem(path)), parent.name) for path in paths if not NOT_PET.fullmatch(stem(path))]


def read_volume(path: str, patient_id: str = "") -> SuvVolume:
    """Read one volume, in any orientation.

    Parameters
    ----------
    path : str
        .nii, .nii.gz or .nrrd; values in SUV (body weight, g/ml), coordinates in mm.
    patient_id : str
        Of the SuvVolume; the file does not say.

    Raises
    ------
    Refused
        Unreadable, not three-dimensional, sheared, or values that are no SUV.
    """
    name = Path(path).name
    array, matrix = read_array(path, np.float32)
    stored = Grid(array.shape, matrix)
    steps, origin = matrix[:3, :3].T, matrix[:3, 3]  # a row an array axis, mm along x, y, z (LPS)
    spacing = np.linalg.norm(steps, axis=1).round(4)
    if array.ndim != 3 or min(array.shape) < 2:
        raise Refused("file", name, f"has the shape {' x '.join(map(str, array.shape))}", "give one volume of SUV")
    if not ((spacing >= 0.1) & (spacing <= 30)).all():
        raise Refused("file", name, f"has voxels of {' x '.join(f'{s:g}' for s in spacing)} mm", "correct its affine")
    axes = steps / np.linalg.norm(steps, axis=1, keepdims=True)
    if np.abs(axes @ axes.T - np.eye(3)).max() > 1e-3:
        raise Refused("file", name, "has axes that are not perpendicular", "resample it")
    if not np.isfinite(array).all():
        raise Refused("file", name, "holds NaN or infinity", "export it again")
    lowest, mean = float(array.min()), body_mean(array)
    if lowest < -1 or not POSSIBLE_MEAN[0] <= mean <= POSSIBLE_MEAN[1]:
        raise Refused("file", name, f"has a minimum of {lowest:.3g} and a mean of {mean:.3g} in the body: not SUV",
                      "give the volume in SUV, not in Bq/ml, and not the CT")
    whole = all(np.array_equal(part, np.round(part)) for part in (array[::9, ::9, ::9], array))
    if whole and array.max() <= 1:
        raise Refused("file", name, "holds 0 and 1 only: a mask", "give the volume in SUV")
    warnings = ["whole numbers only: a mask, or rounded SUV"] if whole else []
    warn_of_mean(mean, "are its values SUV, not kBq/ml?", warnings.append)
    array, spacing, origin = patient_axes(array, tuple(spacing), axes, origin, warnings.append)
    return SuvVolume(array, spacing, origin, warnings, "SUV", None, "", patient_id, "", "", stored, body_mean=mean)


def write_volume(volume: SuvVolume, path: Path) -> None:
    """Write a volume as .nii.gz, float32 SUV, whole or not at all."""
    import nibabel

    (sz, sy, sx), (oz, oy, ox) = volume.spacing, volume.origin
    affine = np.array([[-sx, 0, 0, -ox], [0, -sy, 0, -oy], [0, 0, sz, oz], [0, 0, 0, 1]])  # NIfTI is RAS
    image = nibabel.Nifti1Image(volume.array.transpose(2, 1, 0), affine)
    image.header["descrip"] = f"SUV {volume.suv_type}"
    with replace_file(path, "wb") as file, gzip.GzipFile("", "wb", 1, file, 0) as packed:
        image.to_stream(packed)


def read_array(path: str, dtype: type | None = None) -> tuple[np.ndarray, np.ndarray]:
    """A file's array and its matrix, index -> mm in LPS. `dtype`: a float's, or None for that of the file."""
    try:
        open_file(path).close()
        return (_read_nrrd if path.lower().endswith(".nrrd") else _read_nifti)(path, dtype)
    except Refused:
        raise
    except Exception as error:  # whatever a damaged file provokes in these libraries
        said = str(error).replace(path, Path(path).name)
        raise damaged(path, f"cannot be read: {' '.join(said.split())[:200]}") from error


def _read_nifti(path: str, dtype: type | None) -> tuple[np.ndarray, np.ndarray]:
    import nibabel

    image = cast(nibabel.Nifti1Image, nibabel.load(path))
    header = image.header
    if not (header["sform_code"] or header["qform_code"]):
        raise Refused("file", Path(path).name, "has no affine (sform_code and qform_code 0): its right side is unknown",
                      "write it with its affine")
    _check_affines(image, Path(path).name)
    kind = header["descrip"].item().decode("latin-1")
    if dtype and re.fullmatch(r"SUV \w+", kind) and kind != "SUV bw":
        raise Refused("descrip", kind, "is not SUV by body weight", "write it with --suv bw")
    mm = {"meter": 1000, "micron": 0.001}.get(header.get_xyzt_units()[0], 1)
    _check_size(path, math.prod(image.shape) * max(4, image.get_data_dtype().itemsize))
    array = image.get_fdata(dtype=dtype, caching="unchanged") if dtype else np.asanyarray(image.dataobj)
    return (array[..., 0] if array.shape[3:] == (1,) else array), np.diag([-mm, -mm, mm, 1]) @ image.affine


def _check_affines(image: Any, name: str) -> None:
    """Refuse an sform and a qform of other directions or voxel sizes: programs differ in which of them they take."""
    import nibabel
    if image.header["sform_code"] and image.header["qform_code"]:
        affines = image.get_sform(), image.get_qform()
        sizes = [nibabel.affines.voxel_sizes(affine) for affine in affines]
        one, other = (affine[:3, :3] / size for affine, size in zip(affines, sizes, strict=True))
        degrees = np.degrees(np.arccos(np.clip((one * other).sum(axis=0), -1, 1))).max()
        if degrees > 1 or not np.allclose(sizes[0], sizes[1], rtol=0.01):
            texts = (f"{''.join(nibabel.aff2axcodes(affine))} with voxels of {' x '.join(f'{mm:.3g}' for mm in size)}"
                     for affine, size in zip(affines, sizes, strict=True))
            raise Refused("file", name, f"sform and qform differ by {degrees:.0f} degrees: {' and '.join(texts)}",
                          "find the right one, and write the file with it as both")


def _check_size(path: str, need: int) -> None:
    """Refuse a file whose header announces more bytes than it can hold; packed, no more than MOST_RATIO of its own."""
    packed = not path.lower().endswith(".nii")
    if need > (max(MOST_SMALL, MOST_RATIO * os.path.getsize(path)) if packed else 4 * os.path.getsize(path)):
        raise Refused("file", Path(path).name, f"announces {need >> 20} MiB, which {os.path.getsize(path)} bytes "
                      "cannot hold", "write it again")


def _read_nrrd(path: str, dtype: type | None) -> tuple[np.ndarray, np.ndarray]:
    import nrrd

    with open_file(path) as file:
        header = nrrd.read_header(file)
        if {"data file", "datafile"} & set(header):
            raise Refused("file", Path(path).name, "says that its values lie in another file", "write it as one file")
        need = math.prod(map(int, header["sizes"])) * nrrd.reader._determine_datatype(header).itemsize
        _check_size(path, need)
        start = file.tell()
        unpack: Any = {"gz": zlib.decompressobj(31), "bz": bz2.BZ2Decompressor()}.get(
            str(header.get("encoding", "")).lower().replace("gzip", "gz")[:2])
        while unpack and not unpack.eof and need >= 0 and (block := file.read(1 << 20)):
            need -= len(unpack.decompress(block, need + 1))  # beyond it nothing is unpacked
        if need < 0:
            raise Refused("file", Path(path).name, "unpacks to more than its sizes say", "write it again")
        file.seek(start)
        array = nrrd.read_data(header, file, path)
    space = str(header.get("space", "")).lower()
    if space not in LPS or "space directions" not in header:
        raise Refused("file", Path(path).name, f"space {space!r} does not say where the patient is", "export it with "
                      "space left-posterior-superior")
    if other := set(header.get("space units", ())) - {"mm", ""}:
        raise Refused("file", Path(path).name, f"space units {', '.join(sorted(other))}", "export it in mm")
    matrix = np.eye(4)
    matrix[:3, :3] = np.array(header["space directions"], float).T
    matrix[:3, 3] = header.get("space origin", (0, 0, 0))
    return array.astype(dtype) if dtype else array, np.diag([*LPS[space], 1]) @ matrix
