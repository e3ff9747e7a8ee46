"""prepro_script.py again on the same folder: what is done is left alone, what has changed is converted again."""
import json
import os
import shutil

import pytest
from conftest import call, error_line, run
from pet import COARSE, write_series
from series_helpers import contents, pack, prepro, table

import prepro_script
from common.files import InputError
from preprocessing import conversion

# Second runs

@pytest.fixture
def converted(two_studies, monkeypatch):
    """Two studies, converted; and the list of StudyInstanceUIDs that are converted from then on."""
    shutil.copytree(two_studies / "dicom" / "A", two_studies / "dicom" / "C")
    for path in (two_studies / "dicom" / "C" / "1").iterdir():  # one in an archive
        path.write_bytes(path.read_bytes().replace(b"1.2.3\0", b"1.2.5\0").replace(b"1.2.3.1\0", b"1.2.5.1\0"))
    pack(two_studies / "dicom" / "C", two_studies / "dicom" / "c.zip")
    prepro(two_studies)
    again, real = [], conversion.suv_volume

    def spy(*args):
        volume = real(*args)
        again.append(volume.study_uid)
        return volume

    monkeypatch.setattr(conversion, "suv_volume", spy)
    return two_studies, again


def test_a_second_run_converts_nothing_and_changes_nothing(converted, capsys):
    folder, again = converted
    before = contents(folder / "out")
    assert prepro(folder) is None and again == [] and contents(folder / "out") == before
    assert "3 studies are done, unchanged" in capsys.readouterr().out
    assert prepro(folder, "--overwrite") is None and again == ["1.2.3", "1.2.4", "1.2.5"]
    assert contents(folder / "out") == before


def test_what_has_changed_is_converted_again(converted):
    folder, again = converted

    def converted_now(*args, code=None):
        again.clear()
        assert prepro(folder, *args) == code
        done, left = list(again), (folder / "out" / "data.csv").read_bytes()
        prepro(folder, "--overwrite", *args)
        assert (folder / "out" / "data.csv").read_bytes() == left  # the same bytes as of a full run
        return done

    os.utime(folder / "dicom" / "A" / "1" / "001.dcm")
    assert converted_now() == ["1.2.3"]
    os.utime(folder / "dicom" / "c.zip")
    assert converted_now() == ["1.2.5"]
    write_series(folder / "dicom" / "D", uid="1.2.6", **COARSE)
    assert converted_now() == ["1.2.6"]
    os.remove(folder / "out" / "images" / "1.2.4_sag.bin")
    assert converted_now() == ["1.2.4"]
    with open(folder / "out" / "images" / "1.2.4_sag.bin", "ab") as file:
        file.write(b"more")
    assert converted_now() == ["1.2.4"]
    assert converted_now("--spacing", 4) == ["1.2.3", "1.2.4", "1.2.5", "1.2.6"]
    assert converted_now() == ["1.2.3", "1.2.4", "1.2.5", "1.2.6"]
    shutil.rmtree(folder / "dicom" / "D")
    with pytest.raises(InputError, match=r"holds 1 study that --input lacks.*: 1.2.6; give their folder, too"):
        prepro(folder)
    assert prepro(folder, "--overwrite") is None
    assert converted_now() == [] and "1.2.6" not in (folder / "out" / "done.json").read_text()
    (folder / "dicom" / "A" / "1" / "008.dcm").write_bytes(bytes(200))  # damaged: done before, refused now
    assert converted_now(code=1) == [] and set(table(folder)["scan_id"]) == {"1.2.4", "1.2.5"}


def test_changed_code_converts_everything_again(converted, monkeypatch):
    folder, again = converted
    monkeypatch.setattr(conversion, "_code_version", lambda: "another")
    prepro(folder)
    assert again == ["1.2.3", "1.2.4", "1.2.5"]


def test_changed_labels_are_joined_without_converting(converted):
    folder, again = converted
    for targets in ((0, 1, 0), (1, 1, 0)):
        rows = [f"1.2.{uid},{target},{uid * 1.5}\n" for uid, target in zip((3, 4, 5), targets, strict=True)]
        (folder / "labels.csv").write_text("StudyInstanceUID,target,liver\n" + "".join(rows))
        prepro(folder, "--labels", folder / "labels.csv")
        assert again == [] and table(folder)["target"].tolist() == [t for t in targets for _ in "cs"]
        left = (folder / "out" / "data.csv").read_bytes()
        prepro(folder, "--labels", folder / "labels.csv", "--overwrite")
        assert (folder / "out" / "data.csv").read_bytes() == left
        again.clear()


def test_what_was_put_into_data_csv_is_not_lost(converted):
    folder, again = converted
    path = folder / "out" / "data.csv"
    plain = table(folder)
    for column, value in (("split0", "train"), ("mask", "drawn.npy"), ("target", 1)):
        plain.assign(**{column: value}).to_csv(path, index=False)
        with pytest.raises(InputError, match=f"data.csv: {column} in it would be lost, .* rename it and run again"):
            prepro(folder)
        assert again == [] and table(folder)[column].eq(value).all()
        os.rename(path, folder / "out" / "mine.csv")
        assert prepro(folder) is None and again == [] and table(folder).equals(plain)
    plain.assign(split0="train").to_csv(path, index=False)
    assert prepro(folder, "--overwrite") is None and table(folder).equals(plain)


def test_a_label_that_was_corrected_in_data_csv_is_missed(converted, capsys):
    folder, _ = converted
    labels, path = folder / "labels.csv", folder / "out" / "data.csv"
    labels.write_text("StudyInstanceUID,target,site\n1.2.3,0,007\n1.2.4,1,007\n1.2.5,0,008\n")
    words = ("--labels", labels, "--carry", "site")
    prepro(folder, *words)
    assert prepro(folder, *words) is None and "is not what it was" not in capsys.readouterr().out
    text = path.read_text()
    path.write_text(text.replace(",0,", ",1,", 2))  # both views of the first
    prepro(folder, *words)
    assert "warning: target of 1 scan (1.2.3) is not what it was in" in capsys.readouterr().out
    assert path.read_text() == text
    labels.write_text(labels.read_text().replace("008", "009"))
    prepro(folder, *words, "--overwrite")
    said = capsys.readouterr().out
    assert "warning: site of 1 scan (1.2.5) is not what it was in" in said and "warning: target" not in said
    path.write_text("damaged")
    prepro(folder, *words, "--overwrite")
    assert path.read_text() == text.replace("008", "009")


def test_an_interrupted_run_goes_on(converted, monkeypatch):
    folder, again = converted
    real = conversion.suv_volume

    def interrupted(*args):
        if len(again) == 2:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(conversion, "suv_volume", interrupted)
    with pytest.raises(KeyboardInterrupt):
        prepro(folder, "--overwrite")
    again.clear()
    monkeypatch.setattr(conversion, "suv_volume", real)
    assert prepro(folder) is None and again == ["1.2.5"]


def test_done_json_names_no_file_and_no_patient(two_studies):
    args = ("--input", two_studies / "dicom", "--output", two_studies / "out", "--workers", 1)
    call(prepro_script, *args)
    text = (two_studies / "out" / "done.json").read_text()
    assert len(json.loads(text)) == 2 and "spacing_mm" in text
    assert not any(word in text for word in ("1.2.3", "MRN4711", ".dcm", "Doe", str(two_studies)))
    (two_studies / "out" / "done.json").write_text("{")
    assert "done.json: cannot be read" in error_line(run("prepro_script.py", *args))
    assert call(prepro_script, *args, "--overwrite") is None and call(prepro_script, *args) is None
