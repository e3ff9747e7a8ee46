"""What follows from the names and shapes of a file's parameters: their names here, the head, which of them fit a
network. Imports no torch."""
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from common.files import InputError
from common.text import counted

STATES = ("state_dict", "model_state_dict", "model")  # keys under which a file may hold them; else it holds only them
WRAPPERS = re.compile(r"(?:(?:module|_orig_mod|model|net|network|backbone|encoder)\.)*")
LAYERS = ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4", "avgpool")  # of torchvision
NO_PARAMETER = ("n_averaged",)  # of torch's AveragedModel
FLOATS = ("float32", "float64", "float16", "bfloat16")
FIRST = "features.0.weight"


def network_state(content: Mapping[str, Any], path: str | Path) -> dict[str, Any]:
    """The parameters of a ResNet34 under the names that this toolkit and LARS give them.

    Parameters
    ----------
    content : mapping
        What the file `path` holds: a checkpoint, or parameters alone. Their names may start with those of wrappers
        (`module.`, `_orig_mod.`, `model.`, `backbone.`, ...) or with any one prefix, and be torchvision's, whose layers
        conv1 to avgpool become features.0 to features.8.

    Returns
    -------
    dict
        Name -> tensor.

    Raises
    ------
    InputError
        Two parameters would get one name, the name of one is no text, one has values that no trained network has.
    """
    given = next((content[name] for name in STATES if _has_tensors(content.get(name))), content)
    found: dict[str, Any] = {}
    given = {old: value for old, value in given.items() if hasattr(value, "shape") and old not in NO_PARAMETER}
    if odd := [old for old in given if not isinstance(old, str)]:
        raise InputError(f"{path}: calls a parameter {odd[0]!r}, which is no name; give another checkpoint")
    prefix = _prefix(given, path)
    for old, value in given.items():
        layer, point, rest = WRAPPERS.sub("", old.removeprefix(prefix), count=1).partition(".")
        name = (f"features.{LAYERS.index(layer)}" if layer in LAYERS else layer) + point + rest
        if name in found:
            raise InputError(f"{path}: holds {name} twice, of two networks ({old} is one of them); give a file of one")
        found[name] = value
    for name, value in found.items():
        if wrong := _wrong_values(name, value):
            raise InputError(f"{path}: {name} {wrong}: damaged, or not of a trained network; give another checkpoint")
    return found


def _wrong_values(name: str, tensor: Any) -> str:
    """Why a tensor cannot be a parameter of a network that works, or ""."""
    if str(getattr(tensor, "layout", "")) != "torch.strided" or tensor.device.type != "cpu":
        return f"is a {type(tensor).__name__}, no stored tensor"
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        return f"has the shape {tuple(tensor.shape)}, more than what is stored of it"
    if name.endswith("num_batches_tracked"):
        return ""
    if str(tensor.dtype).removeprefix("torch.") not in FLOATS:
        return f"holds {tensor.dtype}"
    values = tensor.float()
    if not values.sum().isfinite() and not values.isfinite().all():  # the sum is ten times as fast, but may overflow
        return "holds NaN or infinity"
    return "holds a negative variance" if name.endswith("running_var") and (tensor < 0).any() else ""


def _prefix(names: Iterable[str], path: str | Path) -> str:
    """The prefix of the names of a ResNet's layers: "resnet." of resnet.conv1.weight; "" where it is of WRAPPERS, or
    there is no such layer. Raises InputError where there are several."""
    stems = [name.removesuffix(first) for name in names for first in ("conv1.weight", FIRST)
             if re.fullmatch(r"((?!layer\d|features)\w+\.)*" + re.escape(first), name)]
    if "" in stems or any(WRAPPERS.fullmatch(stem) for stem in stems) or not stems:
        return ""
    if len(stems) > 1:
        raise InputError(f"{path}: holds several networks, {' and '.join(stems)}; give a file of one")
    return stems[0]


def _has_tensors(value):
    return isinstance(value, Mapping) and any(hasattr(each, "shape") for each in value.values())


def one_channel(state: dict[str, Any]) -> dict[str, Any]:
    """Parameters of `network_state`, with the first convolution's input channels averaged to one."""
    if FIRST not in state or len(state[FIRST].shape) != 4:
        return state
    return state | {FIRST: state[FIRST].mean(1, keepdim=True)}


def head_options(state: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """cls_arch, hidden and dropout of a network's head; {} where it has none. `settings`: "model" of its checkpoint."""
    if "fc.weight" in state:
        return {"cls_arch": "simple"}
    if "fc.0.weight" in state and len(state["fc.0.weight"].shape) == 2:
        return {"cls_arch": "complex", "hidden": len(state["fc.0.weight"]), "dropout": settings.get("dropout", 0.5)}
    return {}


def find_sites(state: Mapping[str, Any], settings: Mapping[str, Any]) -> tuple[str | None, dict[str, str] | None]:
    """(site_head of `utils.SiteResNet34`, {code: name} of its sites) of a network; (None, None) without a site head."""
    for site_head, weight in (("grid", "fc_loc.linear.weight"), ("linear", "fc_loc.weight")):
        if weight in state and len(state[weight].shape) == 2:
            return site_head, settings.get("sites") or {str(k): f"class {k}" for k in range(len(state[weight]))}
    return None, None


def fitting(state: Mapping[str, Any], own: Mapping[str, Any], same_sites: bool,
            path: str | Path) -> tuple[dict[str, Any], str]:
    """The parameters of a file that a network can load.

    Parameters
    ----------
    state : mapping
        Of `network_state`.
    own : mapping
        The network's state_dict.
    same_sites : bool
        Whether the site heads of both are for the same sites.
    path : str or Path
        The file.

    Returns
    -------
    dict
        Name -> tensor: all of `features`, and of the heads those of equal shape.
    str
        A line on which were taken and which were not.

    Raises
    ------
    InputError
        It lacks parameters of `features`, or has them in another shape.
    """
    left = [name for name in own if name not in state or state[name].shape != own[name].shape
            or (name.startswith("fc_loc.") and not same_sites)]
    lacking = [name for name in left if name.startswith("features.") and not name.endswith("num_batches_tracked")]
    if lacking:
        raise InputError(f"{path}: not the weights of a ResNet34: missing or of another shape: "
                         f"{counted(len(lacking), 'parameter')}, such as {lacking[0]}; it holds "
                         f"{', '.join(list(state)[:3]) or 'no tensors'}")
    taken = [name for name in own if name not in left]
    heads, unused = [name for name in left if name.startswith("fc")], [name for name in state if name not in taken]
    return {name: state[name] for name in taken}, (
        f"{path}: took {_by_part(taken)}"
        + f"; left random, since the checkpoint has another head: {_by_part(heads)}" * bool(heads)
        + f"; not used: {_by_part(unused)}" * bool(unused))


def _by_part(names: Iterable[str]) -> str:
    """ "216 keys of features, 2 keys of fc"."""
    parts = Counter(name.split(".")[0] for name in names)
    return ", ".join(f"{counted(count, 'key')} of {part}" for part, count in parts.items())
