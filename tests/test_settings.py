"""Arguments as they are stored, and whether two sets of them are the same."""
import hashlib
import zipfile

from common.settings import differences, stored_args

NAME = "checkpoint_split0_run1.safetensors"


def test_checkpoint_in_a_zip_is_stored_with_the_digest_of_its_file(tmp_path):
    stored = {}
    for content in (b"one", b"two"):
        with zipfile.ZipFile(tmp_path / f"{content.decode()}.zip", "w") as archive:
            archive.writestr(NAME, content)
        stored[content] = stored_args({"checkpoint": str(tmp_path / f"{content.decode()}.zip" / NAME)})
        assert stored[content] == {"checkpoint": f"{NAME} ({hashlib.sha256(content).hexdigest()[:12]})"}
    (tmp_path / NAME).write_bytes(b"one")
    assert stored_args({"checkpoint": str(tmp_path / NAME)}) == stored[b"one"], "as the file out of the zip"
    assert len(differences(stored[b"one"], stored[b"two"])) == 1
    assert not differences({"checkpoint": NAME}, stored[b"two"]), "stored without one: goes on"
    for before, now in (({"checkpoint": "other.pth"}, stored[b"two"]), (stored[b"two"], {"checkpoint": NAME}),
                        ({"checkpoint": None}, stored[b"two"])):
        assert differences(before, now)
    assert not differences({"checkpoint": None}, {"checkpoint": None})


def test_a_file_that_a_zip_lacks_has_no_digest(tmp_path):
    with zipfile.ZipFile(tmp_path / "models.zip", "w"):
        pass
    assert stored_args({"checkpoint": str(tmp_path / "models.zip" / NAME)}) == {"checkpoint": NAME}
