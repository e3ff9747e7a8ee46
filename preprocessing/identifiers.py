"""Whose scan is it? The key that hashes identifiers, the hashes, and crosswalk.csv, which leads back to the patients.

key_file = find_key(None, Path("mips"))                    # the project's hash_key.txt, made the first time
key = read_key(key_file)
scan_id = hash_id(study_instance_uid, key)
update_crosswalk(key_file, [(scan_id, study_instance_uid, patient_id, "2024-03-10", "")])
"""
import contextlib
import hashlib
import os
import re
import secrets
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from common.files import InputError, read_csv, replace_file, write_csv
from common.locks import locked

KEY_NAME, CROSSWALK_NAME, LEAST_BYTES = "hash_key.txt", "crosswalk.csv", 16
CROSSWALK = ("scan_id", "StudyInstanceUID", "PatientID", "StudyDate", "AccessionNumber")


# The key

def find_key(given: str | None, output: Path) -> Path:
    """The file of the key, and a line that says which it is.

    Parameters
    ----------
    given : str or None
        File of --key. None: the nearest hash_key.txt in `output` or a folder above it, so that one patient has one
        identifier in all folders of a project; where there is none, it is made in the folder above `output`.
    output : Path
        Output folder.

    Returns
    -------
    Path
        For `read_key`; crosswalk.csv lies beside it.

    Raises
    ------
    InputError
        No key can be made.
    """
    folder = Path(os.path.abspath(output))
    found = Path(given) if given else next((place / KEY_NAME for place in (folder, *folder.parents)
                                            if os.path.lexists(place / KEY_NAME)), None)
    if found is None:
        found = _make_key(folder)
        print(f"new key {found}: with it and {CROSSWALK_NAME} beside it scan_id and patient_id lead back to patients. "
              "Keep both from whoever gets the images, and a copy of the key in a safe place")
    else:
        print(f"identifiers are hashed with the key {found}")
    with contextlib.suppress(OSError):
        if os.name == "posix" and found.stat().st_mode & 0o077:
            print(f"warning: others on this machine can read the key: chmod 600 {found}")
    return found


def _make_key(folder: Path) -> Path:
    """Make the key in the folder above `folder`, or within it, where it is a disk of its own or that is closed."""
    places = [folder] if os.path.ismount(folder) else [folder.parent, folder]  # above a container's disk nothing stays
    for place in places:
        path = place / KEY_NAME
        try:
            with locked(place / f".{KEY_NAME}.lock", f"{path} is written", wait=20):
                if not path.exists():  # made meanwhile
                    with replace_file(path, private=True) as file:
                        file.write(secrets.token_hex(32) + "\n")
            return path
        except OSError as error:
            fault = error
    raise InputError(f"--key: none is there, and {places[-1] / KEY_NAME} cannot be made: {fault.strerror}; give the "
                     "file of a key") from fault


def read_key(path: Path) -> bytes:
    """The key of the hashes: 64 bytes for `hash_id`.

    Raises
    ------
    InputError
        The file cannot be read, is empty or holds fewer than 16 bytes.
    """
    try:
        secret = path.read_bytes().strip()
    except OSError as error:
        raise InputError(f"--key {path}: {error.strerror}; give a readable file") from error
    if not secret:
        raise InputError(f"--key {path}: is empty; put its backup in its place, or, where nothing was ever hashed with "
                         "it (a full disk, an interrupted first run), remove it and run again")
    if len(secret) < LEAST_BYTES:
        raise InputError(f"--key {path}: {len(secret)} bytes; a key needs at least {LEAST_BYTES}")
    return hashlib.blake2b(secret).digest()


def check_same_key(output: Path, key: bytes | None) -> None:
    """Refuse to go on in a folder whose identifiers another key hashed: all would change (InputError)."""
    manifest = output / "data.csv"
    if key and manifest.is_file():
        table = read_csv(manifest, usecols=lambda name: name == "id_key")
        before = set(table["id_key"]) - {"", fingerprint(key)} if "id_key" in table else set()
        if before:
            raise InputError(f"--output {output}: its data.csv was hashed with another key (id_key "
                             f"{sorted(before)[0]}, now {fingerprint(key)}): scan_id and patient_id would change; give "
                             "that one by --key, another --output, or --overwrite")


# Hashes

def hash_id(value: str, key: bytes | None) -> str:
    """Keyed BLAKE2b (RFC 7693) of an identifier, 24 hexadecimal digits; the identifier itself where key is None."""
    if key is None:
        return re.sub(r"[/\\\ud800-\udfff]", "_", value)  # it becomes a file's name
    return hashlib.blake2b(value.encode(errors="surrogateescape"), digest_size=12, key=key).hexdigest()


def fingerprint(key: bytes | None) -> str:
    """Of the key of `hash_id`, column id_key: only identifiers under one key can be compared."""
    return "kept" if key is None else hash_id("id_key", key)[:8]


# The way back

def update_crosswalk(key_file: Path, rows: Sequence[Sequence[str]]) -> Path:
    """Write crosswalk.csv beside the key: the rows that are there, and these, which replace those of their scan_id but
    for columns that somebody has added.

    Parameters
    ----------
    key_file : Path
        Of `find_key`.
    rows : sequence of tuple
        The columns of `CROSSWALK` as text, dates as 2024-03-10; of a volume StudyInstanceUID is its name by its path.

    Returns
    -------
    Path
        The file: mode 600, written whole, sorted by scan_id.

    Raises
    ------
    InputError
        The one that is there cannot be read, or another process has been writing it for long.
    """
    path = key_file.with_name(CROSSWALK_NAME)
    with locked(path.with_name(f".{path.name}.lock"), f"{path} is written", wait=20):
        table = pd.DataFrame(rows, columns=CROSSWALK).set_index("scan_id")
        if path.exists():  # read_csv spells PatientID as the manifest does
            before = read_csv(path, ("scan_id",)).rename(columns={"patient_id": "PatientID"})
            before = before.drop_duplicates("scan_id", keep="last").set_index("scan_id")
            table = table.combine_first(before)[[*table, *before.columns.difference(table.columns, sort=False)]]
        write_csv(table.sort_index().reset_index().fillna(""), path, private=True)
    return path
