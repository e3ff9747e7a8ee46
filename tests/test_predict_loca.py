"""predict_loca.py and the sites in aggregate.py: the chain of two-head models as processes, its columns and numbers."""
import json

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import call, error_line, run
from hypothesis import given, settings
from hypothesis import strategies as st
from training_helpers import CODES, SMALL, site_cohort

import aggregate
import find_best_model
import predict
import predict_loca
import train
import train_loca
import utils
from common.files import InputError
from common.sites import SITES
from dataset import NetworkInput, eval_batch, fit_bodies, read_bodies
from evaluation import site_metrics

pytestmark = pytest.mark.usefixtures("shallow")
NAMES = list(SITES.values())
PROBS = [f"L{k}" for k in range(14)]
CPU = ("--device", "cpu", "--amp", "off", "--threads", 1)


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    """Two runs of each of two splits, predicted and aggregated, every script a process of its own."""
    folder = tmp_path_factory.mktemp("chain")
    site_cohort(folder, 48)
    run("train_loca.py", "--output", "loca", *SMALL, "--nepochs", 1, "--split_index", 0, 1, "--run", 1, 2,
        "--site_balance", cwd=folder, check=0)
    (folder / "loca" / "checkpoint_split1_run2.pth").unlink()  # a split with one run
    (folder / "loca" / "convergence_split1_run2.csv").unlink()
    run("find_best_model.py", "--dir", "loca", cwd=folder, check=0)
    run("predict_loca.py", "--output", "loca", "--chptfolder", "loca", "--splits", 0, 1, "--set", "val", "test", *CPU,
        cwd=folder, check=0)
    (folder / "out.txt").write_text(run("aggregate.py", "--dir", "loca", "--output", "loca", "--resamples", 100,
                                        cwd=folder, check=0).stdout)
    return folder


def predicted(folder, output="loca"):
    """The prediction files of a folder, true_loc and pred_loc as text."""
    return [pd.read_csv(path, dtype={"true_loc": str, "pred_loc": str}, keep_default_na=False)
            for path in sorted((folder / output).glob("pred_split*.csv"))]


# ---------------------------------------------------------------- predictions

def test_columns_of_a_prediction(chain):
    table, binary = predicted(chain)[0], list(pd.read_csv(chain / "data.csv").columns)
    columns = list(table.columns)
    assert columns[:columns.index("probs")] == [*binary, "view", "image_sha256", "overlap", "checkpoint_sha256", "set"]
    assert columns[columns.index("probs") + 1:] == [*PROBS, "pred_loc", "pred_loc_name", "true_loc", "true_loc_name",
                                                    *(f"F{k}" for k in range(1, 513))]
    assert set(table["set"]) == {"val", "test"}
    np.testing.assert_allclose(table[PROBS].sum(axis=1), 1, rtol=1e-12)
    assert (table["L13"] == 0).all(), "51 is not decided upon: --site_on positive"
    mean = table.groupby("scan_id")[PROBS].transform("mean").to_numpy()
    assert (table["pred_loc"].astype(int) == mean.argmax(axis=1)).all()
    index = {str(code): str(k) for k, code in enumerate(SITES)}
    assert (table["true_loc"] == table["target_loc"].astype(str).map(index)).all()
    for kind in ("pred", "true"):
        assert table[f"{kind}_loc_name"].tolist() == [NAMES[int(k)] for k in table[f"{kind}_loc"]]
    assert json.loads((chain / "loca" / "sites.json").read_text()) == {
        "sites": {str(code): name for code, name in SITES.items()}, "site_on": "positive",
        "site_multi": False}


def means_along(cells, axis, first, end, fields):
    """The mean of piecewise constant `cells` over each of `fields` equal parts of first..end (shares of the axis)."""
    def one(line):
        edges = np.linspace(first, end, fields + 1) * len(line)
        return np.diff(np.interp(edges, np.arange(len(line) + 1), np.append(0, line.cumsum()))) / np.diff(edges)

    return np.apply_along_axis(one, axis, cells)


def site_logits(state, layers, boxes):
    """The grid's logits, from the maps of layer2 and layer3 (n, channels, rows, columns), by its definition.

    boxes: for each image (first row, end row, first column, end column) in shares of the frame.
    """
    weight = {name.removeprefix("fc_loc."): value.double().numpy() for name, value in state.items() if "fc_loc" in name}
    fields = np.zeros((len(boxes), 32, 20, 12))
    for n, box in enumerate(boxes):
        for name, cells in layers.items():
            cells = means_along(means_along(cells[n].double().numpy(), 1, *box[:2], 20), 2, *box[2:], 12)
            fields[n] += np.einsum("chw,kc->khw", cells, weight[f"{name}.weight"][:, :, 0, 0])
    scale = weight["norm.weight"] / np.sqrt(weight["norm.running_var"] + 1e-5)
    x = (fields - weight["norm.running_mean"][:, None, None]) * scale[:, None, None]
    x = (x + weight["norm.bias"][:, None, None]).clip(0)
    return x.reshape(len(x), -1) @ weight["linear.weight"].T + weight["linear.bias"]


def test_the_grid_is_its_definition():
    """Two images with a body in a frame of 160 x 96 (layer2: 20 x 12 cells), whose boxes begin and end inside cells."""
    torch.manual_seed(0)
    head, boxes = utils.SiteGrid(14), [[11 / 160, 150 / 160, 31 / 96, 93 / 96], [0, 1, 5 / 96, 12 / 96]]
    given = torch.tensor(boxes).reshape(2, 2, 2)
    layers = {"layer2": torch.randn(2, 128, 20, 12), "layer3": torch.randn(2, 256, 10, 6)}
    for _ in range(3):
        head(*layers.values(), given)  # so that the batch norm has statistics
    expected = site_logits({f"fc_loc.{name}": value for name, value in head.state_dict().items()}, layers, boxes)
    found = head.eval()(*layers.values(), given).detach()
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 30), st.integers(1, 20))
def test_field_means_keep_the_sum(seed, height, width):
    """Of any box on any map: the mean of the fields is the mean over the box, and a constant map's fields are it."""
    rng = np.random.default_rng(seed)
    boxes = torch.from_numpy(np.sort(rng.random((3, 2, 2)), axis=2) * [1, 0.9] + [0, 0.1]).float()
    cells = torch.from_numpy(rng.random((3, 2, height, width)))
    whole = utils.field_means(cells, boxes, (1, 1))
    torch.testing.assert_close(utils.field_means(cells, boxes, (20, 12)).mean((2, 3), keepdim=True), whole, rtol=1e-3,
                               atol=1e-4)
    torch.testing.assert_close(utils.field_means(torch.ones_like(cells), boxes, (4, 3)),
                               torch.ones(3, 2, 4, 3, dtype=torch.float64), rtol=1e-3, atol=1e-4)


def test_the_site_does_not_depend_on_where_the_frame_has_the_body():
    """A body moved by 16 pixels, a whole number of cells, has the same fields; its place in the frame differs.

    The frame's border is farther from it than a cell of layer3 sees.
    """
    torch.manual_seed(0)
    model, body = utils.SiteResNet34({str(k): f"site {k}" for k in range(14)}).eval(), 1 + torch.rand(1, 1, 64, 48)
    x = torch.zeros(2, 1, 544, 512)
    x[0, :, 224:288, 224:272], x[1, :, 256:320, 240:288] = body, body
    boxes = torch.tensor([[[224, 288], [224, 272]], [[256, 320], [240, 288]]]) / torch.tensor([544, 512])[:, None]
    with torch.no_grad():
        first, second = model(x, 0, boxes)[:, 2:]
    torch.testing.assert_close(first, second, rtol=1e-3, atol=1e-4)


def test_probabilities_are_those_of_the_network(chain):
    """Logits from the stored features, and from the images, by the checkpoint's own weights; predict.py has the same
    `probs`.
    """
    table = predicted(chain)[1]
    model, content = utils.load_model(chain / "loca" / "checkpoint_split1_run1.pth")
    state, its_input = content["state_dict"], NetworkInput(**content["input"])
    features = torch.from_numpy(table[[f"F{k}" for k in range(1, 513)]].to_numpy("float32"))
    bodies = fit_bodies(read_bodies(table, chain, its_input.pool), its_input.frame, crop=False)
    x, boxes = eval_batch(bodies, np.arange(len(table)), its_input.frame, its_input.norm)
    with torch.no_grad():
        layer2 = model.features[:6](x)
        cells = {"layer2": layer2, "layer3": model.features[6](layer2)}
    boxes = boxes.flatten(1).numpy()
    site = torch.from_numpy(site_logits(state, cells, boxes))[:, :13].softmax(1)
    np.testing.assert_allclose(table[PROBS[:13]], site, rtol=1e-3, atol=1e-6)
    binary = (features @ state["fc.weight"].T + state["fc.bias"]).double().softmax(1)[:, 1]
    np.testing.assert_allclose(table["probs"], binary, rtol=1e-3)
    call(predict, "--data", chain / "data.csv", "--output", chain / "binary", "--chptfolder", chain / "loca",
         "--splits", 0, 1, "--set", "val", "test", *CPU)
    same = predicted(chain, "binary")[1]
    assert (same["probs"] == table["probs"]).all() and "L0" not in same


def test_runs_instead_of_the_best(chain, capsys):
    assert call(predict_loca, "--data", chain / "data.csv", "--output", chain / "runs", "--chptfolder", chain / "loca",
                "--splits", 0, 1, "--run", "1-2", *CPU) == 1
    assert f"split 1 run 2: no checkpoint in {chain / 'loca'}" in capsys.readouterr().out
    names = [path.name for path in sorted((chain / "runs").glob("pred*.csv"))]
    assert names == ["pred_split0_run1.csv", "pred_split0_run2.csv", "pred_split1_run1.csv"]
    first, second, _ = predicted(chain, "runs")
    assert (first["scan_id"] == second["scan_id"]).all() and not np.allclose(first["F2"], second["F2"])
    assert not set(first["checkpoint_sha256"]) & set(second["checkpoint_sha256"])
    assert call(predict_loca, "--data", chain / "data.csv", "--output", chain / "all_runs", "--chptfolder",
                chain / "loca", "--run", "1-2", "--no_features", *CPU) is None  # none was asked for that lacks
    assert [path.name for path in sorted((chain / "all_runs").glob("pred*.csv"))] == names
    with pytest.raises(InputError, match="holds no checkpoint of splits 0 to 1 and runs 7; correct --chptfolder"):
        call(predict, "--data", chain / "data.csv", "--chptfolder", chain / "loca", "--splits", 0, 1, "--run", 7)


def test_new_patients_without_target_and_site(chain, tmp_path, capsys):
    table = pd.read_csv(chain / "data.csv").iloc[:6].drop(columns=["target", "target_loc", "split0", "split1"])
    table.to_csv(chain / "new.csv", index=False)
    call(predict_loca, "--data", chain / "new.csv", "--set", "all", "--output", tmp_path, "--chptfolder",
         chain / "loca", "--splits", 0, 1, *CPU)
    call(aggregate, "--dir", tmp_path, "--output", tmp_path)
    said = capsys.readouterr().out
    assert "no scan has a target" in said and "ensemble_sites.csv" in said
    rows = predicted(tmp_path, "")[0]
    assert len(rows) == 6 and (rows["true_loc"] == "").all() and rows["pred_loc_name"].isin(NAMES[:13]).all()
    sites = pd.read_csv(tmp_path / "ensemble_sites.csv")
    assert len(sites) == 3 and sites["true_loc"].isna().all() and (sites["n_models"] == 2).all()
    assert not (tmp_path / "site_metrics.csv").exists()


def test_a_binary_checkpoint_is_refused(chain):
    call(train, "--data", chain / "data.csv", "--output", chain / "one", *SMALL, "--nepochs", 1)
    done = error_line(run("predict_loca.py", "--output", "x", "--chptfolder", "one", "--splits", 0, 0, "--run", 1,
                          cwd=chain))
    assert done == "error: one/checkpoint_split0_run1.pth: has no site head; predict.py predicts with it"
    assert not (chain / "x").exists()


@pytest.mark.parametrize("options", [("--site_on", "all"), ("--site_multi",), ("--site_map", "map.json")])
def test_other_heads_are_predicted_and_measured(tmp_path, capsys, no_figure, options):
    table = site_cohort(tmp_path, 48)
    names = NAMES
    if "--site_map" in options:
        names = [f"site {code}" for code in CODES] + ["no lesion"]
        (tmp_path / "map.json").write_text(json.dumps({str(code): f"site {code}" for code in CODES}))
        options = ("--site_map", tmp_path / "map.json")
    if "--site_multi" in options:
        table["target_loc"] = np.where(table["target"] == 1, table["target_loc"].astype(str) + ";20", "51")
        table.to_csv(tmp_path / "data.csv", index=False)
    files = ("--data", tmp_path / "data.csv", "--output", tmp_path / "out")
    call(train_loca, *files, *SMALL, "--nepochs", 1, *options)
    call(find_best_model, "--dir", tmp_path / "out")
    call(predict_loca, *files, "--chptfolder", tmp_path / "out", "--splits", 0, 0, "--no_features", *CPU)
    call(aggregate, "--dir", tmp_path / "out", "--output", tmp_path / "out", "--resamples", 50)
    rows, = predicted(tmp_path, "out")
    scores = rows[[f"L{k}" for k in range(len(names))]]
    found = json.loads((tmp_path / "out" / "metrics.json").read_text())["sites"]
    scans = rows.drop_duplicates("scan_id")
    if "--site_multi" in options:
        mean = scores.groupby(rows["scan_id"]).mean().loc[scans["scan_id"]].to_numpy()
        assert scans["pred_loc"].tolist() == [";".join(map(str, np.flatnonzero(row >= 0.5))) for row in mean]
        assert scans.loc[scans["target"] == 1, "true_loc_name"].str.endswith("; spleen").all()
        assert "loc_ap" in found["ensemble"] and "confusion" not in found["ensemble"]
        assert not (tmp_path / "out" / "site_confusion.png").exists()
        spleen = found["ensemble"]["sites"][NAMES.index("spleen")]
        assert spleen["n"] == (scans["target"] == 1).sum() and spleen["called"] == (mean[:, 9][
            scans["target"] == 1] >= 0.5).sum()
    else:
        np.testing.assert_allclose(scores.sum(axis=1), 1)
        assert found["names"] == (names if "all" in options else names[:-1])
        assert found["ensemble"]["n"] == (len(scans) if "all" in options else (scans["target"] == 1).sum())
        assert (tmp_path / "out" / "site_confusion.png").exists()
        assert set(rows["pred_loc_name"]) <= set(names) | {""}
    assert "lesion site" in capsys.readouterr().out


def test_models_of_different_sites_are_not_predicted_together(chain, tmp_path):
    for name in ("checkpoint_split0_run1.pth", "checkpoint_split1_run1.pth"):
        content = utils.read_checkpoint(chain / "loca" / name)
        if "split1" in name:
            content["model"]["site_on"] = "all"
        utils.save_checkpoint(tmp_path / name, content)
    with pytest.raises(InputError, match="checkpoint_split1_run1.pth: its site head is for other sites"):
        call(predict_loca, "--data", chain / "data.csv", "--output", tmp_path, "--chptfolder", tmp_path, "--splits", 0,
             1, "--run", 1)
    (tmp_path / "map.json").write_text('{"1": "a", "2": "b"}')
    with pytest.raises(InputError, match="was trained with other sites than those of --site_map"):
        call(predict_loca, "--data", chain / "data.csv", "--output", tmp_path, "--chptfolder", chain / "loca",
             "--splits", 0, 0, "--run", 1, "--site_map", tmp_path / "map.json")


# ---------------------------------------------------------------- aggregate.py

def test_sites_of_the_ensemble_are_the_mean_over_views_and_models(chain):
    models = [table[table["set"] == "test"].groupby("scan_id")[PROBS].mean() for table in predicted(chain)]
    sites = pd.read_csv(chain / "loca" / "ensemble_sites.csv").set_index("scan_id")
    mean = (models[0] + models[1]).loc[sites.index] / 2
    np.testing.assert_allclose(sites[PROBS], mean, rtol=1e-12)
    assert (sites["pred_loc"] == mean.to_numpy().argmax(axis=1)).all()
    positive = sites[sites["target"] == 1]
    found = json.loads((chain / "loca" / "metrics.json").read_text())["sites"]
    result = found["ensemble"]
    assert result["n"] == len(positive) and found["names"] == NAMES[:13] and result["n_groups"] == len(positive)
    right = positive["pred_loc"] == positive["true_loc"]
    assert result["loc_acc"]["value"] == pytest.approx(right.mean())
    assert result["loc_bacc"]["value"] == pytest.approx(right.groupby(positive["true_loc"]).mean().mean())
    for k, site in enumerate(result["sites"]):
        mine = positive["true_loc"] == k
        assert site["n"] == mine.sum() and site["called"] == (positive["pred_loc"] == k).sum()
        assert site["recall"]["value"] == (pytest.approx(right[mine].mean()) if mine.any() else None)
    assert np.sum(result["confusion"]) == len(positive) and np.trace(result["confusion"]) == right.sum()
    table = pd.read_csv(chain / "loca" / "site_metrics.csv", keep_default_na=False)
    assert list(dict.fromkeys(table["model"])) == ["ensemble", *(model["file"] for model in found["models"])]
    row = table[(table["model"] == "ensemble") & (table["metric"] == "loc_bacc")].iloc[0]
    assert float(row["value"]) == result["loc_bacc"]["value"]


def test_sites_are_shown(chain):
    said = (chain / "out.txt").read_text()
    assert "lesion site" in said and "all models" in said and "balanced accuracy of a guess: 0.167" in said
    assert (chain / "loca" / "site_confusion.png").read_bytes()[:4] == b"\x89PNG"
    page = (chain / "loca" / "report.html").read_text()
    for text in ('<h2 id="lesion-sites">', "Predicted and true site", "supraclavicular", "Top-3 accuracy"):
        assert text in page, text


def test_sites_that_cannot_be_read_are_refused(chain, tmp_path, no_figure):
    source = pd.read_csv(chain / "loca" / "pred_split1_run1.csv", dtype=str, keep_default_na=False)
    source = source[[name for name in source if not name.startswith("F")]]

    def aggregated(table, sites=None):
        table.to_csv(tmp_path / "pred_split0_run1.csv", index=False)
        (tmp_path / "sites.json").unlink(missing_ok=True)
        if sites:
            (tmp_path / "sites.json").write_text(sites)
        call(aggregate, "--dir", tmp_path, "--output", tmp_path / "out", "--resamples", 20)
        return json.loads((tmp_path / "out" / "metrics.json").read_text())

    metrics = aggregated(source)
    assert any("sites.json is missing" in line for line in metrics["warnings"])
    assert metrics["sites"]["site_on"] == "all" and len(metrics["sites"]["names"]) == 14
    for table, sites, said in (
            (source.drop(columns="L13"), None, "sites.json: not a sites.json"),
            (source, '{"sites": {"1": "a", "2": "b", "51": "n"}, "site_on": "all", "site_multi": false}',
             "has 14 site columns, but sites.json names 3 sites"),
            (source.assign(L3="1.5"), None, "L3 '1.5'; it must lie in 0..1"),
            (source.assign(true_loc="14"), None, "true_loc '14' is not a class index, 0 to 13"),
            (source.assign(true_loc=[str(k % 2) for k in range(len(source))]), None, "has true_loc")):
        with pytest.raises(InputError, match=said):
            aggregated(table, sites)
    unknown = aggregated(source.assign(true_loc=""))
    assert unknown["sites"]["ensemble"] is None
    assert any("predicted, not measured" in line for line in unknown["warnings"])
    assert not {"site_confusion.png", "site_metrics.csv"} & {path.name for path in (tmp_path / "out").iterdir()}


def test_a_binary_model_among_them_is_named(chain, tmp_path, no_figure):
    for path in (chain / "loca").glob("pred_*.csv"):
        table = pd.read_csv(path)
        if "split1" in path.name:
            table = table.drop(columns=[*PROBS, "true_loc"])
        table.to_csv(tmp_path / path.name, index=False)
    (tmp_path / "sites.json").write_text((chain / "loca" / "sites.json").read_text())
    call(aggregate, "--dir", tmp_path, "--output", tmp_path, "--resamples", 20)
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert any("no site columns in 1 of 2 models" in line for line in metrics["warnings"])
    assert len(metrics["sites"]["models"]) == 1 and len(metrics["models"]) == 2


def test_several_sites_by_hand():
    """Predicted is 0.5 or more; recall and precision of each site, and its AUC."""
    truth = np.array([[1, 1, 0], [1, 0, 0], [0, 1, 0], [0, 1, 1]], bool)
    scores = np.array([[0.9, 0.2, 0.1], [0.4, 0.6, 0.7], [0.1, 0.8, 0.2], [0.6, 0.5, 0.9]])
    assert site_metrics.predicted_sites(scores, multi=True) == ["0", "1;2", "1", "0;1;2"]
    result = site_metrics.all_metrics(truth, scores, ["a", "b", "c"], multi=True, resamples=50)
    a, b, c = result["sites"]
    assert [(site["n"], site["called"]) for site in (a, b, c)] == [(2, 2), (3, 3), (1, 2)]
    assert [site["recall"]["value"] for site in (a, b, c)] == [1 / 2, 2 / 3, 1]
    assert [site["precision"]["value"] for site in (a, b, c)] == [1 / 2, 2 / 3, 1 / 2]
    assert [site["auc"]["value"] for site in (a, b, c)] == pytest.approx([3 / 4, 1 / 3, 1])
    assert result["loc_auc"]["value"] == pytest.approx((3 / 4 + 1 / 3 + 1) / 3)
    assert result["loc_acc"]["value"] == 3 / 4 and "confusion" not in result
