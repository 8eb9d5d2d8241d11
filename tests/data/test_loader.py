"""The same batches whatever the workers, ranks and resumes; errors and threads end where they should."""
import gc
import threading

import numpy as np
import pytest
from helpers.data import assert_same_batches, loader_of

from passl_mixer.data import build_dataset, rng
from passl_mixer.data.loader import epoch_order
from passl_mixer.errors import BadInput

DATA = {"name": "synthetic", "num_images": 50, "img_size": 12, "num_classes": 3}


def loader(**options):
    return loader_of(build_dataset(DATA), {"name": "simclr", "img_size": 10}, **{"batch_size": 8, **options})


def batches(made, epoch=1, start=0):
    return [([v.copy() for v in views], labels.copy()) for views, labels in made.epoch(epoch, start)]


def data_threads():
    return [t for t in threading.enumerate() if t.name.startswith("passl_mixer_data")]


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_batches_do_not_depend_on_the_number_of_workers(workers):
    assert_same_batches(batches(loader()), batches(loader(num_workers=workers)))
    assert not data_threads()


@pytest.mark.parametrize("workers", [0, 2])
def test_a_resume_continues_the_epoch(workers):
    made = loader(num_workers=workers)
    assert_same_batches(batches(made)[4:], batches(made, start=4))
    assert batches(made, start=len(made)) == []


def test_seeds_and_epochs_change_order_and_pixels():
    first = batches(loader())
    for other in (batches(loader(), epoch=2), batches(loader(seed=4))):
        assert not np.array_equal(first[0][0][0], other[0][0][0])
    assert batches(loader())[0][0][0].shape == (8, 10, 10, 3)


def test_rng_streams_are_repeatable_and_distinct():
    triples = [(s, e, i) for s in (0, 1, 7) for e in (0, 1, 2) for i in (0, 1, 2, 1_200_000)]
    draws = {t: tuple(rng(*t).integers(0, 2**63, 2).tolist()) for t in triples}
    assert len(set(draws.values())) == len(triples)
    assert all(tuple(rng(*t).integers(0, 2**63, 2).tolist()) == d for t, d in draws.items())
    values = np.array([rng(0, 0, i).random() for i in range(4000)])
    assert abs(values.mean() - 0.5) < 0.02
    assert abs(np.corrcoef(values[:-1], values[1:])[0, 1]) < 0.05
    order = epoch_order(0, 0, 100)
    assert sorted(order) == list(range(100))
    assert not np.array_equal(order, epoch_order(0, 1, 100))


def test_an_epoch_sees_every_image_once():
    made = loader(drop_last=False, shuffle=True)
    assert len(made) == 7
    assert sorted(np.concatenate(made.indices(0))) == list(range(50))
    assert np.array_equal(np.concatenate(loader(drop_last=False, shuffle=False).indices(0)), np.arange(50))
    assert len(loader()) == 6


@pytest.mark.parametrize("drop_last", [True, False])
def test_ranks_share_each_global_batch(drop_last):
    whole = loader(batch_size=12, drop_last=drop_last).indices(1)
    ranks = [loader(batch_size=4, drop_last=drop_last, rank=r, world_size=3).indices(1) for r in range(3)]
    assert len(whole) == len(ranks[0]) == (4 if drop_last else 5)
    for b, indices in enumerate(whole):
        assert np.array_equal(indices, np.concatenate([rank[b] for rank in ranks]))


def test_labels_belong_to_their_images():
    for views, labels in loader(num_workers=2).epoch(0):
        assert views[0].dtype == np.uint8
        assert labels.dtype == np.int64
        assert len(labels) == 8
    made = loader(num_workers=2)
    for (_, labels), indices in zip(made.epoch(0), made.indices(0)):
        assert np.array_equal(labels, indices % 3)


class Unlabelled:
    """Raises for one image, counts the images it gave."""
    labels = None

    def __init__(self, broken=None):
        self.broken, self.given = broken, 0

    def __len__(self):
        return 400

    def image(self, index):
        self.given += 1
        if index == self.broken:
            raise BadInput(f"image {index} is broken")
        return np.full((10, 10, 3), index % 256, np.uint8)


def plain(dataset, workers):
    return loader_of(dataset, {"name": "center_crop", "img_size": 10}, batch_size=4, num_workers=workers, shuffle=False)


@pytest.mark.parametrize("workers", [0, 3])
def test_an_error_in_a_worker_arrives_once_and_ends_the_iteration(workers):
    iterator = plain(Unlabelled(broken=9), workers).epoch(0)
    assert next(iterator)[1] is None
    next(iterator)
    with pytest.raises(BadInput, match="image 9 is broken"):
        next(iterator)
    assert list(iterator) == []
    assert not data_threads()


def test_an_abandoned_iterator_lets_its_threads_go_and_read_little_ahead():
    dataset = Unlabelled()
    iterator = plain(dataset, 2).epoch(0)
    next(iterator)
    assert dataset.given <= 4 * 4
    del iterator
    gc.collect()
    assert not data_threads()
    for _ in plain(dataset, 2).epoch(0):
        break
    assert not data_threads()


@pytest.mark.parametrize(("options", "words"), [
    ({"batch_size": 51}, r"50 images.*set data\.batch_size to at most 50"),
    ({"batch_size": 20, "world_size": 3}, "one batch of 60"),
    ({"batch_size": 0}, r"data\.batch_size is 0"),
    ({"rank": 2, "world_size": 2}, "rank is 2"),
])
def test_sizes_that_cannot_work_are_named(options, words):
    with pytest.raises(BadInput, match=words):
        loader(**options)
