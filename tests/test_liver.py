"""The liver's mean SUV: in bodies drawn here, with what could be mistaken for one, in the phantom and a real series."""
import numpy as np
import pytest
from pet import REAL, needs_real_series

from preprocessing.liver import find_liver
from preprocessing.suv import body_mean, suv_volume
from synthetic import cohort

SPACING, ORIGIN = (5.0, 5.0, 5.0), (-300.0, -150.0, -200.0)


def drawn(*blobs, noise=0.08):
    """A body of SUV 0.8 with ellipsoids: (centre z, y, x and radii, mm from the corner; SUV)."""
    z, y, x = np.ogrid[:160, :60, :80]
    volume = np.where(((y - 30) / 26) ** 2 + ((x - 40) / 34) ** 2 < 1, 0.8, 0.0) * np.ones((160, 1, 1))
    for centre, radii, value in blobs:
        inside = sum(((axis * 5 - c) / r) ** 2 for axis, c, r in zip((z, y, x), centre, radii, strict=True)) < 1
        volume[np.broadcast_to(inside, volume.shape)] = value
    return (volume * np.random.default_rng(0).normal(1, noise, volume.shape)).astype("float32")


LIVER = (450, 150, 130), (75, 70, 75), 2.2
SPLEEN, KIDNEY = ((450, 190, 310), (45, 30, 30), 1.9), ((330, 190, 130), (45, 22, 22), 5.0)


@pytest.mark.parametrize("factor", [1, 2.2, 0.3])  # pounds for kilograms, say
def test_sphere_lies_in_the_liver_whatever_the_scale(factor):
    volume = drawn(LIVER, SPLEEN, KIDNEY) * np.float32(factor)
    found = find_liver(volume, SPACING, ORIGIN, body_mean(volume))
    assert found.suv == pytest.approx(2.2 * factor, rel=0.02)
    for at, start, centre, radius in zip(found.place, ORIGIN, *LIVER[:2], strict=True):
        assert abs(at - start - centre) < radius / 2


@pytest.mark.parametrize("blobs", [
    (SPLEEN, KIDNEY),  # no liver in the image
    (((450, 150, 130), (35, 35, 35), 2.2),),  # 180 ml: a mass
    (((450, 150, 270), (75, 70, 75), 2.2),),  # on the left: mirrored
    (((450, 150, 130), (75, 70, 75), 9.0),),  # as hot as a bulky tumour
])
def test_what_is_no_liver_for_certain_is_not_taken_for_one(blobs):
    volume = drawn(*blobs)
    assert find_liver(volume, SPACING, ORIGIN, body_mean(volume)) is None
    assert find_liver(np.zeros((9, 9, 9), "float32"), SPACING, ORIGIN, float("nan")) is None


def test_uneven_liver_is_not_measured():
    volume = drawn(LIVER)
    volume[70:110:8, :, :40] *= 4  # metastases
    volume[:, 20:40:6, 15:40] *= 0.3
    assert find_liver(volume, SPACING, ORIGIN, body_mean(volume)) is None


@pytest.mark.slow
def test_livers_of_the_phantom(tmp_path):
    patients = [cohort.plan_patient(3, index, "mixed") for index in range(8)]
    labels = cohort.write_patients(patients, tmp_path, "mixed", 1).set_index("StudyInstanceUID")
    ratios = []
    for folder in tmp_path.glob("*/*"):
        volume = suv_volume(folder)
        found = find_liver(volume.array, volume.spacing, volume.origin, body_mean(volume.array))
        ratios.append(found.suv / labels.loc[volume.study_uid, "liver_suv"])
    assert len(ratios) >= 8 and np.abs(np.array(ratios) - 1).max() < 0.08


@needs_real_series
def test_liver_of_a_patient():
    volume = suv_volume(REAL)
    found = find_liver(volume.array, volume.spacing, volume.origin, body_mean(volume.array))
    assert found.suv == pytest.approx(2.0, abs=0.1) and found.place[2] < 0  # by eye in the right lobe
