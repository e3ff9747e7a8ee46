"""review.html in a headless browser: what is shown, keys, blind readings, the CSV and what takes it."""
import base64
import json
import zlib

import numpy as np
import pandas as pd
import pytest
from browser_helpers import Browser, needs_chromium

from common.files import InputError
from common.manifest import read_manifest
from evaluation import readers
from inference import review

SHAPE = (40, 24)
EVIL = '</script><img src=x onerror="document.title=1">'


def write_room(folder, n=30):
    """A page of n scans: uniform bodies of SUV 2, a hot square and heat on it where the target is 1."""
    rows = []
    for k in range(n):
        for view in ("cor", "sag"):
            name = folder / f"s{k:03d}_{view}"
            image = np.full(SHAPE, 2, "<f4")
            image[4:8, 4:8] += 10 * (k % 2)
            image.tofile(name.with_suffix(".bin"))
            np.save(name.with_suffix(".npy"), (image > 5) * np.float32(0.5))
            rows.append({"scan_id": f"s{k:03d}", "filename": f"{name.name}.bin", "target": k % 2, "age": 30 + k,
                         "site": EVIL if k == 3 else "north", "matrix_size_1": SHAPE[0], "matrix_size_2": SHAPE[1],
                         "spacing_mm": 3.27})
    pd.DataFrame(rows).to_csv(folder / "data.csv", index=False)
    table = read_manifest(folder / "data.csv")
    place = table["scan_id"].str[1:].astype(int)
    table = table.assign(probs=place / n, scan_probs=place / n, sd=(n - place) / n, n_models=2, sites="",
                         models="split 0 run 1, split 1 run 1",
                         map=[folder / name.replace(".bin", ".npy") for name in table["filename"]])
    review.write_review(table, folder, folder / "review.html", {"suv_max": 7, "heat_max": 0.5}, "HiResCAM of layer1")
    return folder / "review.html"


@pytest.fixture(scope="module")
def room(tmp_path_factory):
    return write_room(tmp_path_factory.mktemp("room"))


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with Browser(tmp_path_factory.mktemp("browser")) as browser:
        yield browser


@pytest.fixture
def page(room, browser):
    """The page as a reader first finds it."""
    browser.events.clear()
    page = browser.open(room)
    page.run("localStorage.clear()")
    page.run("delete document.body.dataset.drawn")  # of the page that goes
    page.send("Page.reload")
    page.wait("document.body?.dataset.drawn")
    yield page
    assert page.faults() == []
    page.send("Page.close")


def name(page):
    return page.run("document.getElementById('name').textContent")


def pixel(page, view, row, column):
    """Red, green, blue of a pixel of the MIP as it is drawn."""
    script = f"""(() => {{ const {{canvas, view}} = views[{view}], s = canvas.width / view.columns;
        return [...canvas.getContext("2d").getImageData(({column} + .5) * s, ({row} + .5) * s, 1, 1).data]; }})()"""
    return page.run(script)[:3]


def chosen(page, place, value):
    page.run(f"(() => {{ const box = document.getElementById('{place}'); box.value = {value!r}; "
             "box.dispatchEvent(new Event('change')); })()")


def order(page):
    return page.run("shown.map(scan => scan.id)")


def saved(page, folder):
    """Press s -> the CSV that the browser downloads."""
    page.key("s")
    page.wait("document.getElementById('state').textContent.includes('Saved')")
    path = folder / "downloads" / "readings_Ann_Lee.csv"
    for _ in range(200):
        if path.exists():
            break
        page.run("new Promise(done => setTimeout(done, 20))")
    text = path.read_bytes().decode("utf-8")
    path.unlink()
    return text


def test_bytes_of_a_view_are_its_levels_and_its_heat():
    rng = np.random.default_rng(0)
    image = rng.gamma(1, 3, (9, 6)).astype("float32")
    share = np.zeros((9, 6))
    share[8, 5], share[0, 0] = 0.5, 2.0
    content = np.frombuffer(zlib.decompress(base64.b64decode(review.packed(image, share))), np.uint8)
    levels = np.cumsum(content[:54].reshape(9, 6), axis=0, dtype=np.uint8)
    suv = review.SUV_MOST * (levels / review.LEVELS) ** 2
    np.testing.assert_allclose(np.sqrt(suv), np.sqrt(image.clip(0, 20)), atol=np.sqrt(20) / 127 / 2 + 1e-6)
    assert content[54:].tolist() == [255, 0, 0, 0, 0, 128]  # 3 x 2 cells, the highest pixel of each


@needs_chromium
def test_a_blind_reader_sees_no_score_and_scores_by_keyboard(page, browser):
    text = page.run("document.querySelector('main').innerText")
    assert "0.97" not in text and "north" not in text and "false" not in text  # nothing of label or score
    assert page.run("[...document.getElementById('order').options].map(o => o.text)") == [
        "shuffled", "as in the manifest", "my score"]
    assert order(page) != sorted(order(page))
    chosen(page, "order", "as in the manifest")
    assert name(page) == "s000"
    page.key("4", "j", "2", "ArrowRight", "5", "k")
    assert name(page) == "s001"
    page.key("3", "c")
    page.write('=1+1, "b" j5')  # in the comment, no key acts
    page.key("Escape", "n")
    assert name(page) == "s003"  # the first without a score after this one
    page.key("1", "0")  # taken back
    page.key("s")
    assert "reader's name" in page.run("document.getElementById('state').textContent")
    page.write("Ann Lee")
    page.key("Enter")
    table = [line.split(",", 2) for line in saved(page, browser.folder).strip().split("\n")]
    assert table[0] == ["\ufeffscan_id", "deauville", "comment,reader,time,blind"]
    assert [row[:2] for row in table[1:]] == [['"s000"', '"4"'], ['"s001"', '"3"'], ['"s002"', '"5"']]
    assert table[2][2].startswith('"\'=1+1, ""b"" j5","Ann Lee","20')
    assert all(row[2].endswith('"1"') for row in table[1:])
    page.key("b", "4", "b", "j", "4")  # once left, blind mode is not blind any more
    blind = [line.rsplit(",", 1)[1] for line in saved(page, browser.folder).strip().split("\n")]
    assert blind == ["blind", '"1"', '"1"', '"1"', '"0"', '"0"']
    page.run("delete document.body.dataset.drawn")  # of the page that goes
    page.send("Page.reload")
    page.wait("document.body?.dataset.drawn")
    assert page.run("document.getElementById('reader').value") == "Ann Lee"
    assert "5 read" in page.run("document.getElementById('count').textContent")


@needs_chromium
def test_sorting_filtering_and_the_picture(page):
    page.key("b")
    for by, first in (("error, largest first", "s001"), ("probability, highest first", "s029"), ("age", "s000"),
                      ("disagreement, largest first", "s000")):
        chosen(page, "order", by)
        assert order(page)[0] == first == name(page), by
    chosen(page, "which", "false negative")
    assert set(order(page)) == {f"s{k:03d}" for k in range(1, 15, 2)}
    chosen(page, "which", "all")
    page.key("/")
    page.write("age>=55")
    page.key("Enter")
    assert order(page) == [f"s{k:03d}" for k in range(25, 30)]
    page.run("document.getElementById('filter').value = ''")
    page.key("/")
    page.write("s003")
    page.key("Escape")
    assert order(page) == ["s003"] and EVIL in page.run("document.getElementById('facts').textContent")
    assert page.run("document.title") == "Reading room" and page.run("document.querySelectorAll('img').length") == 0
    page.wait("document.body.dataset.drawn == 's003'")
    red, green, blue = pixel(page, 0, 5, 5)
    assert red > green + 60 and red > blue + 60  # the heat map over the hot square
    page.key("m")
    page.run("draw()")
    assert max(pixel(page, 0, 5, 5)) < 5  # SUV 12 is black
    assert pixel(page, 1, 20, 12)[0] == pytest.approx(255 * (1 - 2 / 7), abs=4)
    page.key("[", "[")  # black from SUV 5 on
    page.run("draw()")
    assert pixel(page, 1, 20, 12)[0] == pytest.approx(255 * (1 - 2 / 5), abs=5)
    page.key("+", "+", "+")
    assert page.run("zoom") == pytest.approx(1.25**3)
    box = page.run("(box => [box.x + box.width / 2, box.y + 200])(views[0].canvas.getBoundingClientRect())")
    page.mouse("mouseWheel", *box, deltaX=0, deltaY=-400)
    assert page.run("zoom") == pytest.approx(1.25**3 * np.e, rel=1e-6)
    page.mouse("mousePressed", *box, button="left", buttons=1, clickCount=1)
    page.mouse("mouseMoved", box[0] + 30, box[1] + 20, button="left", buttons=1)
    page.mouse("mouseReleased", box[0] + 30, box[1] + 20, button="left")
    assert page.run("pan.x[0] > 0 && pan.y > 0")
    page.key("r")
    assert page.run("[zoom, pan.y]") == [1, 0]


@needs_chromium
def test_another_computer_goes_on_with_a_saved_csv(page):
    text = 'scan_id;deauville;comment;reader;time;blind\r\ns007;5;"\'-low ""neck""";Bo;2026-01-02T03:04:05.000Z;1\r\n' \
           's008;9;;Bo;;1\r\nelse;2;;Bo;;1\r\n'  # as Excel saves it
    page.run(f"load({json.dumps(text)})")
    said = page.run("document.getElementById('state').textContent")
    assert "Loaded: 1 reading; left out, of no scan here or without a score from 1 to 5: 2 rows." in said
    assert page.run("mine().readings") == {
        "s007": {"ds": 5, "comment": '-low "neck"', "time": "2026-01-02T03:04:05.000Z", "blind": 1}}
    page.run("load('a,b\\n1,2\\n')")
    assert "Not loaded" in page.run("document.getElementById('state').textContent")


@needs_chromium
def test_what_was_read_before_a_name_was_written_is_kept(page):
    chosen(page, "order", "as in the manifest")
    page.key("4", "j", "5", "j", "3")
    text = "scan_id,deauville,comment,reader,time,blind\ns002,1,,Bo,2026-01-02T03:04:05.000Z,1\n"
    page.run(f"load({json.dumps(text)})")
    assert "Write the reader's name first." in page.run("document.getElementById('state').textContent")
    assert page.run("Object.keys(store.readers)") == [""] and page.run("Object.keys(mine().readings).length") == 3
    chosen(page, "reader", "Ann")
    page.run(f"load({json.dumps(text)})")  # now Bo's, Ann's stay hers
    assert page.run("store.reader") == "Bo" and page.run("Object.keys(store.readers.Ann.readings).length") == 3
    chosen(page, "reader", "")
    page.run("document.activeElement.blur(), go(0)")
    page.key("2", "j", "j", "5")
    chosen(page, "reader", "Bo")  # known here: s002 stays as it was read before
    assert "Left out, of scans that Bo had read before: 1 reading." in page.run(
        "document.getElementById('state').textContent")
    assert page.run("Object.entries(mine().readings).map(([id, each]) => id + each.ds).sort()") == ["s0002", "s0021"]
    assert "2 read" in page.run("document.getElementById('count').textContent")


def readings(folder, reader, scores, blind=1):
    table = pd.DataFrame({"scan_id": list(scores), "deauville": scores.values(), "comment": "'=x", "reader": reader,
                          "time": "2026-01-02T03:04:05.000Z", "blind": blind})
    path = folder / f"readings_{reader}.csv"
    path.write_text("\ufeff" + table.to_csv(index=False))
    return path


def test_the_reader_study_takes_its_csvs(tmp_path):
    scans = pd.DataFrame(index=pd.Index(["a", "b", "c"], name="scan_id"))
    ann, bo = readings(tmp_path, "Ann", {"a": 4, "b": 1}), readings(tmp_path, "Bo", {"c": 1, "b": 3}, blind=0)
    warnings = []
    found = readers.read_calls([ann, bo], scans, warnings)
    assert found.calls.to_dict("list") == {"Ann": [1, 0, pytest.approx(np.nan, nan_ok=True)],
                                           "Bo": [pytest.approx(np.nan, nan_ok=True), 0, 0]}
    assert found.about["scale"] == readers.SCALES["deauville"] and found.about["names"] == ["Ann", "Bo"]
    assert any("not blind: 2 of 2 readings of Bo" in text for text in warnings)
    assert not any("Ann" in text for text in warnings)
    with pytest.raises(InputError, match="reader Ann is in two of them"):
        readers.read_calls([ann, ann], scans, [])
    with pytest.raises(InputError, match=r"readings_Bo.csv, line 3 \(scan b\): reader 'Bo', deauville '6'"):
        readers.read_calls([readings(tmp_path, "Bo", {"c": 1, "b": 6})], scans, [])
