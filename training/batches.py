"""Where training batches come from: images, or the features of a frozen backbone, computed once per placement."""
import numpy as np
import torch

from common.files import InputError, progress
from dataset import available_memory, check_augmentation, eval_batch, train_batch
from training.device import autocast

MIDDLE = "middle"  # of the frame: the placement of evaluation
RESERVE = 0.8  # of the free memory, for cached features
FILL_BATCH = 32  # images at a time; a constant, so that the features are the same bits for every --batch_size


def batch_indices(n, batch_size):
    """Places 0..n-1 in batches of at most `batch_size`, as even as they go: none is left with a single image."""
    return np.array_split(np.arange(n), max(1, -(-n // batch_size)))


def epoch_order(index, targets, seed, oversample=False):
    """The images of one training epoch: `index` shuffled, with `oversample` the rarer class filled up by repeats.

    Args:
        index: (n,) int array, images of the training split.
        targets: (n,) int array of 0/1.
        seed (sequence of int): for example (seed, split, run, epoch).
    """
    rng = np.random.default_rng(seed)
    if oversample:
        classes = [index[targets == c] for c in (0, 1)]
        rare = min(classes, key=len)
        missing = abs(len(classes[0]) - len(classes[1]))
        index = np.concatenate([index, rng.permutation(np.resize(rng.permutation(rare), missing))])
    return rng.permutation(index)


def step_seed(seed, position):
    """One int for the batch that starts at `position` of the epoch `seed` (tuple of int)."""
    return int(np.random.SeedSequence((*seed, int(position))).generate_state(1)[0])


class Images:
    """Images placed, augmented and normalized.

    What happens to an image depends on the epoch's seed and its position in the epoch, not on the number of processes.

    Args:
        bodies (dataset.Bodies): on the device of the batches.
        given (NetworkInput): frame and normalization.
        augm (int): code of --augm.
    """
    start = 0  # the first layer of ResNet34.features that these batches enter

    def __init__(self, bodies, given, augm=0):
        check_augmentation(augm, given.frame)
        self.bodies, self.given, self.augm, self.device = bodies, given, augm, bodies.device

    def begin(self, order, seed):
        """Start an epoch over the images `order` (n,); seed: tuple of int, its last number the epoch."""
        self.order, self.seed = order, seed
        self.draws = torch.from_numpy(np.random.default_rng(seed).random((len(order), 6)))

    def batch(self, positions, mine=slice(None)):
        """The share `mine` of the batch at the places `positions` of the epoch: (B, 1, rows, columns)."""
        noise, here = None, positions[mine]
        if "5" in str(self.augm):
            generator = torch.Generator(self.device).manual_seed(step_seed(self.seed, positions[0]))
            noise = torch.randn((len(positions), *self.given.frame), generator=generator, device=self.device)[mine]
        return train_batch(self.bodies, self.order[here], self.draws[here], self.given.frame, self.given.norm,
                           self.augm, noise)

    def prepare(self, index):
        """Said before `middle` is asked for these images."""

    def middle(self, index):
        """The images `index` in the middle of the frame: (B, 1, rows, columns)."""
        return eval_batch(self.bodies, index, self.given.frame, self.given.norm)


class NoRoom(InputError):
    """Features of frozen layers do not fit into memory."""


class FeatureCache(dict):
    """Features that several runs over one split's images and one backbone share, in the order of their last use."""

    def __getitem__(self, key):
        value = self.pop(key)
        self[key] = value
        return value

    def free(self, need, device, keep):
        """Free memory of the device, bytes, after those that were not used for longest went until `need` bytes fit.

        What is in `keep` (set of keys) stays.
        """
        while need > RESERVE * (free := available_memory(device)) and (others := [k for k in self if k not in keep]):
            del self[others[0]]
            if device.type == "cuda":
                torch.cuda.empty_cache()
        return free


class Features:
    """The output of a frozen backbone, computed once per placement of each image and kept; placements come in turn.

    Args:
        images (Images): what they are computed from.
        model (utils.ResNet34), start (int): its features[:start] is frozen.
        placements (int): how many epochs have placements of their own; later ones take these in turn.
        seed (tuple of int): of the placements.
        cache (FeatureCache): where the features lie; one that several runs of one backbone and seed share spares the
            rest. Each lies under (start, its placement).
        check: called between batches; may raise to stop.
    """

    def __init__(self, images, model, start, placements, amp, seed, cache=None, check=None):
        self.images, self.model, self.start, self.device = images, model, start, images.device
        self.placements, self.amp, self.seed = placements, amp, seed
        self.cache, self.check, self.used = FeatureCache() if cache is None else cache, check or (lambda: None), set()

    def begin(self, order, seed):
        placement = (seed[-1] - 1) % self.placements
        self.key, self.order = (self.images.augm, placement), order
        if (self.start, self.key) not in self.cache:
            train = np.unique(order)
            self.images.begin(train, (*self.seed, placement))
            self._fill(self.key, train, self.images.batch, f"frozen layers, placement {placement + 1}")

    def batch(self, positions, mine=slice(None)):
        rows, features = self._cached(self.key)
        return features[rows[self.order[positions[mine]]]]

    def prepare(self, index):
        missing = index[self._cached(MIDDLE)[0][index] < 0]
        if len(missing):
            self._fill(MIDDLE, missing, lambda positions: self.images.middle(missing[positions]), "frozen layers")

    def middle(self, index):
        rows, features = self._cached(MIDDLE)
        return features[rows[index]]

    def _cached(self, key):
        """(row of each image or -1, (n, ...) features or None)."""
        key = self.start, key
        self.used.add(key)
        return self.cache[key] if key in self.cache else (np.full(len(self.images.bodies.names), -1), None)

    @torch.no_grad()
    def _fill(self, key, index, batch, description):
        """Compute the images `index` and add them to those of `key`."""
        self.model.eval()
        rows, old = self._cached(key)
        done, features = 0 if old is None else len(old), None
        with progress(None, description, "image", len(index)) as bar:
            for positions in batch_indices(len(index), FILL_BATCH):
                with autocast(self.device, self.amp):
                    x = self.model.features[:self.start](batch(positions).contiguous(memory_format=torch.channels_last))
                if features is None:
                    features = x.new_empty(self._room(x, done + len(index)))
                    if done:
                        features[:done] = old
                features[done + positions] = x
                bar.update(len(positions))
                self.check()
        rows = rows.copy()
        rows[index] = done + np.arange(len(index))
        self.cache[self.start, key] = rows, features

    def _room(self, x, n):
        """The shape of n features like those of the batch x. Raises NoRoom where they do not fit into memory."""
        need = x[0].numel() * x.element_size() * n
        free = self.cache.free(need, self.device, self.used)
        if need > RESERVE * free:
            raise NoRoom(f"the frozen layers' output of {n} images needs {need / 1e9:.1f} GB, {free / 1e9:.1f} are "
                         "free; --cached_placements 0 computes it in every epoch")
        return (n, *x.shape[1:])
