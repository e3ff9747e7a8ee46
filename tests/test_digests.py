"""Was a model trained on what it is asked for? By keyed digests of scans, patients and images."""
import hashlib
import hmac

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.digests import (
    BY_ID,
    BY_IMAGE,
    NONE,
    NOT_CHECKED,
    START_UNKNOWN,
    name_scans,
    overlap,
    row_digests,
    training_digests,
    with_earlier,
)


def manifest(n, first=0, key="k1", images=True):
    number = [first + k // 2 for k in range(2 * n)]
    table = pd.DataFrame({"scan_id": [f"s{k}" for k in number], "patient_id": [f"p{k // 2}" for k in number],
                          "id_key": key})
    return table.assign(image_sha256=[f"{first * 2 + k:064x}" for k in range(2 * n)]) if images else table


def test_the_digest_is_hmac_sha_256():
    expected = hmac.new(b"0a", b"patient_id\0k1\0p0", hashlib.sha256).hexdigest()[:32]
    assert row_digests(manifest(1), "patient_id", "0a") == [expected] * 2
    assert row_digests(manifest(1).drop(columns="patient_id"), "patient_id", "0a") == ["", ""]


@given(st.lists(st.sampled_from(["train", "val", "test", "cal"]), min_size=4, max_size=4))
def test_rows_are_known_by_scan_patient_or_image(sets):
    """Four patients of two scans of two views each."""
    table, of_rows = manifest(8), [name for name in sets for _ in range(4)]
    stored = training_digests(table, of_rows)
    unseen = NONE if "train" in sets else BY_ID
    assert overlap(table, stored).tolist() == [name if name in ("train", "val") else unseen for name in of_rows]
    assert not {"s0", "p0", "k1"} & {d for name in ("train", "val") for c in stored[name].values() for d in c}


def test_another_scan_of_a_trained_patient_and_a_renamed_copy():
    stored = training_digests(manifest(2), ["train"] * 2 + ["val"] * 2)
    follow_up = manifest(1, first=50).assign(patient_id="p0")
    assert overlap(follow_up, stored).tolist() == ["train"] * 2
    renamed = manifest(3).assign(scan_id="x", patient_id="y", id_key="k2")
    assert overlap(renamed, stored).tolist() == ["train"] * 2 + ["val"] * 2 + [BY_IMAGE] * 2
    other = manifest(1, first=9, key="k2").assign(scan_id="s0", patient_id="p0")  # the same numbers at another centre
    assert overlap(other, stored).tolist() == [BY_IMAGE] * 2


def test_what_could_not_be_compared():
    without = training_digests(manifest(2, images=False), ["train"] * 4)
    new = manifest(1, first=50)
    assert overlap(new, without).tolist() == [BY_ID] * 2
    assert overlap(new.assign(id_key="k2"), without).tolist() == [NOT_CHECKED] * 2
    assert overlap(new, None).tolist() == [NOT_CHECKED] * 2
    stored = training_digests(manifest(2), ["train"] * 4)
    assert overlap(new.drop(columns="image_sha256"), stored).tolist() == [BY_ID] * 2
    assert overlap(new.assign(image_sha256=["", "ab"]), stored).tolist() == [BY_ID, NONE]
    unknown = stored | {START_UNKNOWN: True}  # of a network that started from one without digests
    for known in (unknown, with_earlier(unknown, manifest(1), ["train"] * 2)):
        assert overlap(new, known).tolist() == [NOT_CHECKED] * 2
        assert overlap(manifest(2), known).tolist() == ["train"] * 4
    before = manifest(2).drop(columns="id_key")  # manifests of before name no key
    stored = training_digests(before, ["train"] * 4)
    assert overlap(before, stored).tolist() == ["train"] * 4
    assert overlap(new.drop(columns="id_key"), stored).tolist() == [NONE] * 2


def test_each_checkpoint_has_its_own_salt():
    one, other = (training_digests(manifest(1), ["train"] * 2) for _ in range(2))
    assert one["salt"] != other["salt"] and one["train"]["scan_id"] != other["train"]["scan_id"]


@pytest.mark.parametrize(("n", "said"), [(1, "1 scan (s0)"), (7, "7 scans (s0, s1, s2, s3, s4 and 2 more)")])
def test_names(n, said):
    assert name_scans(manifest(n), [True] * 2 * n) == said
