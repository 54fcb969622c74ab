import hashlib
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import tensorflow as tf

import model.data
from model.config import AB_RANGE, Sampling
from model.data import Batches, light_and_colour, photo_weights, resized, whole_photos
from model.film import age, film_lightness
from model.holdout import split_holdout
from model.pack import pack_photos
from model.photos import PhotosError, decode, draw, find_photos, shrink


def write(path, rgb):
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), rgb[..., ::-1])


def picture(hue: int, height: int = 60, width: int = 80, seed: int = 0) -> np.ndarray:
    hsv = np.random.default_rng(seed).integers(60, 255, (height, width, 3), dtype=np.uint8)
    hsv[..., 0] = hue
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)


@pytest.fixture
def folder(tmp_path):
    for i in range(12):
        write(tmp_path / "photos" / "reds" / f"{i:02d}.png", picture(0, seed=i))
    for i in range(4):
        write(tmp_path / "photos" / "blues" / f"{i:02d}.jpg", picture(120, seed=50 + i))
    return tmp_path / "photos"


@pytest.fixture
def pack(folder, tmp_path):
    return pack_photos(find_photos([folder]), tmp_path / "cache", 50, 15.0)


def test_photos_are_found_in_any_tree_and_sorted(folder):
    (folder / "notes.txt").write_text("no photo")
    photos = find_photos([folder])
    assert [photo.name for photo in photos][:5] == ["blues/00.jpg", "blues/01.jpg", "blues/02.jpg", "blues/03.jpg",
                                                    "reds/00.png"]  # fmt: skip
    assert {photo.source for photo in photos} == {"reds", "blues"}


def test_each_of_several_folders_is_a_source_however_deep_it_is(tmp_path):
    """FFHQ unpacks into 70 numbered folders; beside it, a flat set of other photos is not to be one source in 71."""
    for i in range(12):
        write(tmp_path / "FFHQ" / f"{i:02d}000" / f"{i:05d}.png", picture(10, seed=i))
    for i in range(3):
        write(tmp_path / "landscapes" / f"{i:05d}.png", picture(90, seed=20 + i))
    photos = find_photos([tmp_path / "FFHQ", tmp_path / "landscapes"])
    assert {photo.source for photo in photos} == {"FFHQ", "landscapes"}
    assert len({photo.name for photo in photos}) == 15
    pack = pack_photos(photos, tmp_path / "cache", 50, 15.0)
    everything = np.arange(len(pack))
    landscapes = pack.sources == pack.source_names.index("landscapes")
    for power, share in ((1.0, 3 / 15), (0.0, 1 / 2)):
        drawn = photo_weights(pack, everything, Sampling(source_power=power, rarity_power=0.0))
        assert drawn[landscapes].sum() == pytest.approx(share)
    _, held = split_holdout(pack, 3, ["landscapes"])
    assert held.tolist() == np.flatnonzero(landscapes).tolist()
    (alone,) = {photo.source for photo in find_photos([tmp_path / "landscapes"])}
    assert alone == "landscapes"
    numbered = find_photos([tmp_path / "FFHQ"])
    assert numbered[0].name == "00000/00000.png" and len({photo.source for photo in numbered}) == 12


def test_folders_of_one_name_are_told_apart_by_their_parents(tmp_path, monkeypatch):
    for place in ("mine/photos", "theirs/photos", "theirs/scenes"):
        write(tmp_path / place / "one.png", picture(0))
    monkeypatch.chdir(tmp_path / "theirs" / "scenes")
    folders = [tmp_path / "mine" / "photos", tmp_path / "theirs" / "photos", Path("."), Path(".")]
    photos = find_photos(folders[:3])
    assert [photo.name for photo in photos] == ["mine/photos/one.png", "scenes/one.png", "theirs/photos/one.png"]
    assert {photo.source for photo in find_photos(folders)} == {"mine/photos", "theirs/photos", "scenes"}


def test_the_cache_of_a_single_folder_is_known_by_what_it_always_was(folder, tmp_path):
    """Its name is made of lines that no release may change: hours of decoding hang on it."""
    photos = find_photos([folder])
    lines = [f"{photo.path.relative_to(folder).as_posix()} {photo.path.stat().st_size} {photo.path.stat().st_mtime_ns}"
             for photo in photos]  # fmt: skip
    pack_photos(photos, tmp_path / "cache", 50, 15.0)
    key = hashlib.sha256("\n".join(["pack 1 50 15.0", *lines]).encode()).hexdigest()[:16]
    assert {path.name for path in (tmp_path / "cache").iterdir()} == {f"photos-{key}.npz", f"photos-{key}.u8"}


def test_empty_and_missing_folders_are_named(tmp_path):
    with pytest.raises(PhotosError, match="No JPEG"):
        find_photos([tmp_path])
    with pytest.raises(PhotosError, match="does not exist"):
        find_photos([tmp_path / "absent"])


def test_a_file_in_place_of_a_folder_is_told_so(folder):
    with pytest.raises(PhotosError, match=r"00\.jpg is a file\. PHOTOS is a folder"):
        find_photos([folder / "blues" / "00.jpg"])


def array_set(folder):
    """The Image Colorization set with three pictures; returns them."""
    rgb = np.stack([cv2.GaussianBlur(picture(hue, 224, 224), (0, 0), 9) for hue in (0, 60, 120)])
    lab = np.stack([cv2.cvtColor(p, cv2.COLOR_RGB2Lab) for p in rgb])
    (folder / "l").mkdir()
    (folder / "ab" / "ab").mkdir(parents=True)
    np.save(folder / "l" / "gray_scale.npy", lab[..., 0])
    np.save(folder / "ab" / "ab" / "ab1.npy", lab[:2, ..., 1:])
    np.save(folder / "ab" / "ab" / "ab2.npy", lab[2:, ..., 1:])
    return rgb


def test_the_image_colorization_sets_arrays_are_paired(tmp_path):
    rgb = array_set(tmp_path)
    photos = find_photos([tmp_path])
    assert len(photos) == 3
    for photo, truth in zip(photos, rgb, strict=True):
        assert np.abs(decode(photo).astype(int) - truth).mean() < 3


def test_an_array_set_without_colours_is_named(tmp_path):
    np.save(tmp_path / "gray_scale.npy", np.zeros((2, 8, 8), np.uint8))
    with pytest.raises(PhotosError, match="ab1"):
        find_photos([tmp_path])


def cut(path):
    path.write_bytes(path.read_bytes()[:-1000])


@pytest.mark.parametrize("name", ["l/gray_scale.npy", "ab/ab/ab1.npy"])
@pytest.mark.parametrize(
    "spoil",
    [
        cut,
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"PK\x03\x04 no array"),
        lambda path: path.write_bytes(path.read_bytes().replace(b"{'descr'", b"{'descr(", 1)),
        lambda path: np.save(path, np.array([None, {}]), allow_pickle=True),
        lambda path: np.save(path, np.zeros(3, np.uint8)),
        lambda path: np.save(path, np.zeros((3, 224, 224, 5), np.uint8)),
        lambda path: np.save(path, np.zeros((3, 224, 224, 2), "datetime64[s]")),
    ],
    ids=["cut", "empty", "a zip", "header", "objects", "one axis", "five channels", "times"],
)
def test_an_array_that_is_torn_or_none_of_the_set_is_named(tmp_path, name, spoil):
    array_set(tmp_path)
    (photo,) = find_photos([tmp_path])[:1]
    spoil(tmp_path / name)
    with pytest.raises(PhotosError, match=name.rpartition("/")[2]):
        find_photos([tmp_path])
    with pytest.raises(PhotosError, match=name.rpartition("/")[2]):
        decode(photo)


def test_colours_of_another_size_are_named(tmp_path):
    array_set(tmp_path)
    np.save(tmp_path / "ab" / "ab" / "ab2.npy", np.zeros((1, 112, 100, 2), np.uint8))
    with pytest.raises(PhotosError, match=r"ab2\.npy holds pictures of 100x112 px, and .*gray_scale\.npy of 224"):
        find_photos([tmp_path])


@pytest.mark.parametrize(
    "spoil",
    [
        lambda index, pixels: cut(index),
        lambda index, pixels: index.write_bytes(b""),
        lambda index, pixels: np.savez(index, text=np.frombuffer(b"{}", np.uint8)),
        lambda index, pixels: pixels.unlink(),
        lambda index, pixels: cut(pixels),
        lambda index, pixels: pixels.write_bytes(b""),
    ],
    ids=["index cut", "index empty", "index of something else", "no pixels", "pixels cut", "pixels empty"],
)
def test_a_broken_cache_is_made_anew(folder, tmp_path, pack, caplog, spoil):
    before = [pack.photo(i).copy() for i in range(len(pack))]
    index, pixels = (next((tmp_path / "cache").glob(f"*.{kind}")) for kind in ("npz", "u8"))
    spoil(index, pixels)
    again = pack_photos(find_photos([folder]), tmp_path / "cache", 50, 15.0)
    assert again.names == pack.names
    for number, photo in enumerate(before):
        np.testing.assert_array_equal(again.photo(number), photo)
    assert "is broken and made anew" in caplog.text and str(index) in caplog.text
    caplog.clear()
    pack_photos(find_photos([folder]), tmp_path / "cache", 50, 15.0)
    assert not caplog.text


def test_a_run_that_maps_the_cache_keeps_it_while_another_makes_it_anew(folder, tmp_path, pack):
    mapped = next((tmp_path / "cache").glob("*.u8")).stat().st_ino
    next((tmp_path / "cache").glob("*.npz")).unlink()
    pack_photos(find_photos([folder]), tmp_path / "cache", 50, 15.0)
    assert next((tmp_path / "cache").glob("*.u8")).stat().st_ino != mapped  # still open, so never given out again


def test_corrupt_gray_and_tiny_photos_are_left_out_by_name(folder, tmp_path):
    write(folder / "reds" / "gray.png", np.repeat(picture(0)[..., :1], 3, 2))
    write(folder / "reds" / "tiny.png", picture(0, 20, 20))
    (folder / "reds" / "torn.jpg").write_bytes(b"\xff\xd8\xff\xe0 torn")
    pack = pack_photos(find_photos([folder]), tmp_path / "cache", 50, 15.0)
    assert len(pack) == 16
    assert set(pack.dropped) == {"reds/gray.png", "reds/tiny.png", "reds/torn.jpg"}
    assert "colour" in pack.dropped["reds/gray.png"] and "decoded" in pack.dropped["reds/torn.jpg"]


def test_a_folder_of_gray_photos_is_an_error(tmp_path):
    write(tmp_path / "g" / "gray.png", np.repeat(picture(0)[..., :1], 3, 2))
    with pytest.raises(PhotosError, match="None of 1 photos"):
        pack_photos(find_photos([tmp_path / "g"]), tmp_path / "cache", 50, 15.0)


def test_the_pack_holds_the_photos_and_is_taken_again(folder, tmp_path, pack):
    photos = find_photos([folder])
    np.testing.assert_array_equal(pack.photo(6), shrink(decode(photos[6]), 50))
    stamp = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "cache").iterdir()}
    again = pack_photos(photos, tmp_path / "cache", 50, 15.0)
    assert {path.name: path.stat().st_mtime_ns for path in (tmp_path / "cache").iterdir()} == stamp
    assert again.names == pack.names


def test_shrink_keeps_shape_and_cuts_panoramas():
    assert shrink(np.zeros((100, 120, 3), np.uint8), 50).shape == (50, 60, 3)
    assert shrink(np.zeros((100, 500, 3), np.uint8), 50).shape == (50, 75, 3)
    assert shrink(np.zeros((40, 40, 3), np.uint8), 50).shape == (40, 40, 3)


def test_the_draw_follows_the_seed(folder):
    photos = find_photos([folder])
    assert draw(photos, 5, seed=3) == draw(photos, 5, seed=3)
    assert draw(photos, 5, seed=3) != draw(photos, 5, seed=4)
    assert draw(photos, None, seed=3) == photos == draw(photos, 99, seed=3)


def test_whole_sources_can_be_held_out(pack):
    source = pack.source_names[0]
    learned, held = split_holdout(pack, 3, [source])
    assert {pack.source_names[i] for i in pack.sources[held]} == {source}
    assert source not in {pack.source_names[i] for i in pack.sources[learned]}
    assert len(learned) + len(held) == len(pack)
    with pytest.raises(PhotosError, match="No photos come from 'mars'"):
        split_holdout(pack, 3, ["mars"])
    with pytest.raises(PhotosError, match="Every photo"):
        split_holdout(pack, 3, pack.source_names)


def test_the_holdout_depends_on_names_alone_and_is_balanced(pack):
    learned, held = split_holdout(pack, 3)
    assert not set(learned) & set(held)
    assert len(learned) + len(held) == len(pack)
    assert sorted(pack.source_names[pack.sources[i]] for i in held) == ["blues", "reds"]
    assert split_holdout(pack, 3)[1].tolist() == held.tolist()


def test_small_sources_and_rare_colours_are_drawn_more_often(pack):
    everything = np.arange(len(pack))
    plain = photo_weights(pack, everything, Sampling(source_power=1.0, rarity_power=0.0))
    np.testing.assert_allclose(plain, 1 / len(pack))
    blue = pack.sources == pack.source_names.index("blues")
    balanced = photo_weights(pack, everything, Sampling(source_power=0.0, rarity_power=0.0))
    assert balanced[blue].sum() == pytest.approx(0.5)
    rare = photo_weights(pack, everything, Sampling(source_power=1.0, rarity_power=1.0))
    assert rare[blue].mean() > rare[~blue].mean()
    assert rare.sum() == pytest.approx(1)


def test_batches_are_a_function_of_seed_and_step(pack):
    batches = Batches(pack, np.arange(len(pack)), Sampling(), 4, seed=1)
    light, colour = batches.at(7, 32)
    assert (light.shape, colour.shape) == ((4, 32, 32, 1), (4, 16, 16, 2))
    assert light.dtype == colour.dtype == np.float32
    assert np.abs(light).max() <= 1 and np.abs(colour).max() <= 1.2
    np.testing.assert_array_equal(light, batches.at(7, 32)[0])
    assert not np.array_equal(light, batches.at(8, 32)[0])
    ahead = [pair for pair, _ in zip(batches.dataset(6, 32).as_numpy_iterator(), range(2), strict=False)]
    np.testing.assert_array_equal(ahead[1][0], light)


def test_batches_are_made_on_all_cores_and_come_in_their_order(pack, monkeypatch):
    asked, really = [], tf.data.Dataset.map

    def mapped(self, function, **options):
        asked.append(options)
        return really(self, function, **options)

    def at(self, step, size_px):
        time.sleep(0.03 * (step % 3 == 0))  # every third is late
        return np.full((2, size_px, size_px, 1), step, np.float32), np.zeros((2, 16, 16, 2), np.float32)

    monkeypatch.setattr(model.data, "cores", lambda: 7)
    monkeypatch.setattr(tf.data.Dataset, "map", mapped)
    monkeypatch.setattr(Batches, "at", at)
    made = Batches(pack, np.arange(len(pack)), Sampling(), 2, seed=1).dataset(5, 32)
    assert asked == [{"num_parallel_calls": 7, "deterministic": True}]
    assert [int(light[0, 0, 0, 0]) for light, _ in made.take(12).as_numpy_iterator()] == list(range(5, 17))


def two_sided(tmp_path):
    """A pack of one photo: bright yellow at the left, dark blue at the right."""
    rgb = np.zeros((64, 64, 3), np.uint8)
    rgb[:, :24], rgb[:, 24:] = (240, 230, 40), (30, 40, 160)
    write(tmp_path / "sides" / "one.png", rgb)
    return pack_photos(find_photos([tmp_path / "sides"]), tmp_path / "sides_cache", 64, 15.0)


def test_light_and_colour_are_mirrored_together(tmp_path):
    """Of whole photos without film only two batches exist: the photo, and the photo mirrored."""
    pack = two_sided(tmp_path)
    light, colour = Batches(pack, np.array([0]), Sampling(whole_share=1.0, film_share=0.0), 24, seed=2).at(0, 64)
    known_light, known_colour = light_and_colour(pack.photo(0).astype(np.float32) / 255)
    mirrored = [bool(picture[0, 0, 0] < picture[0, -1, 0]) for picture in light]
    assert 4 <= sum(mirrored) <= 20
    for picture, ab, turned in zip(light, colour, mirrored, strict=True):
        step = -1 if turned else 1
        np.testing.assert_allclose(picture[:, ::step], known_light, atol=1e-5)
        np.testing.assert_allclose(ab[:, ::step], known_colour, atol=1e-5)
        yellow = ab[0, -1 if turned else 0, 1]
        assert yellow > 0.3 and ab[0, 0 if turned else -1, 1] < -0.3


def test_film_ages_the_light_and_leaves_the_colour_to_learn_alone(pack):
    """One picture a batch: what film draws from the batch's random numbers changes nothing that is drawn before it."""
    everything = np.arange(len(pack))
    clean, aged = (Batches(pack, everything, Sampling(film_share=share), 1, seed=3) for share in (0.0, 1.0))
    changed = 0
    for step in range(20):
        (light, colour), (old_light, old_colour) = clean.at(step, 32), aged.at(step, 32)
        np.testing.assert_array_equal(old_colour, colour)
        changed += not np.allclose(old_light, light, atol=0.01)
    assert changed >= 15


def test_whole_photos_are_spread_over_the_indices_and_left_as_they_are(pack):
    indices = np.arange(len(pack))[::-1]
    light, colour = whole_photos(pack, indices, 3, 32)
    assert (light.shape, colour.shape) == ((3, 32, 32, 1), (3, 16, 16, 2))
    for number, index in enumerate((15, 7, 0)):
        known = light_and_colour(resized(pack.photo(index), 32).astype(np.float32) / 255)
        np.testing.assert_array_equal(light[number], known[0])
        np.testing.assert_array_equal(colour[number], known[1])
    assert len(whole_photos(pack, indices[:2], 8, 32)[0]) == 2


class Film:
    """Random numbers that always choose one film."""

    def __init__(self, number: int) -> None:
        self._number = number

    def choice(self, count: int, p: list[float]) -> int:
        assert count == len(p) > self._number
        return self._number


def test_orthochromatic_film_draws_red_dark_and_blue_light():
    patches = np.eye(3, dtype=np.float32)[None]  # red, green, blue
    panchromatic, orthochromatic = (film_lightness(patches, Film(number))[0] for number in (0, 1))
    np.testing.assert_allclose(panchromatic, (53.23, 87.74, 32.30), atol=0.05)  # L* of sRGB's primaries
    np.testing.assert_allclose(orthochromatic, (26.73, 84.49, 61.65), atol=0.05)  # 116·∛(0.05, 0.65, 0.30) - 16


def test_light_and_colour_of_a_known_square():
    square = np.zeros((4, 4, 3), np.float32)
    square[:, :2] = (1, 0, 0)
    square[:, 2:] = (1, 1, 1)
    light, colour = light_and_colour(square)
    assert light[0, 3, 0] == pytest.approx(1, abs=1e-3)
    assert light[0, 0, 0] == pytest.approx(53.24 / 50 - 1, abs=2e-3)
    np.testing.assert_allclose(colour[0, 0] * AB_RANGE, (80.09, 67.2), atol=0.3)
    np.testing.assert_allclose(colour[0, 1], 0, atol=1e-3)


def test_film_stays_in_range_and_draws_white_as_white():
    random = np.random.default_rng(0)
    for _ in range(20):
        seen = film_lightness(np.ones((8, 8, 3), np.float32), random)
        np.testing.assert_allclose(seen, 100, atol=0.1)
        aged = age(random.uniform(0, 100, (16, 16)).astype(np.float32), random)
        assert aged.dtype == np.float32
        assert aged.min() >= 0 and aged.max() <= 100
