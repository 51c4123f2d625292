"""The audit: every fault that it knows is planted once and found; of clean pictures nothing serious is said."""

import io
import tracemalloc

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy.stats import norm

import pipelines.twins as twins_module
from pipelines.duplicates import contradictions, duplicate_findings, straddling
from pipelines.encoded import Encoded
from pipelines.finding import NOTE, SERIOUS, WARNING, Finding, by_severity
from pipelines.hints import deviations, hint_features, hint_findings, needed_deviations
from pipelines.label_noise import label_noise_findings, neighbour_classes
from pipelines.labels import MISSING
from pipelines.look import look_at, read_headers
from pipelines.shift import measure_shift, picture_statistics, shift_findings
from pipelines.statistics import balance_findings, blank_findings, header_findings, unreadable_findings
from pipelines.twins import FARTHEST, find_twins, near_pairs, usual_detail


def scenes(count: int, seed: int = 0, size: int = 48) -> np.ndarray:
    """Pictures of coloured blobs, all different, uint8 [N, size, size, 3]."""
    generator = np.random.default_rng(seed)
    small = generator.integers(0, 256, (count, 6, 6, 3), "uint8")
    return np.stack([np.asarray(Image.fromarray(one).resize((size, size), Image.Resampling.BICUBIC)) for one in small])


def changed(picture: np.ndarray, quality: int = 70, scale: float = 1.0, light: float = 1.0) -> np.ndarray:
    """The same picture after another size, a little more light and another JPEG."""
    height, width = picture.shape[:2]
    image = Image.fromarray(picture).resize((round(width * scale), round(height * scale)))
    image = image.point(lambda value: min(255, int(value * light)))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file).convert("RGB").resize((width, height)))


def kinds(found: list[Finding]) -> dict[str, Finding]:
    assert len({finding.kind for finding in found}) == len(found)
    return {finding.kind: finding for finding in found}


def ids(count: int) -> np.ndarray:
    return np.array([f"p{number:04d}" for number in range(count)], object)


# --- twins


@pytest.mark.parametrize(
    "change", [{}, {"scale": 0.6}, {"scale": 1.7}, {"light": 1.1}, {"scale": 0.7, "light": 0.92}], ids=str
)
def test_picture_is_known_again_after_jpeg_size_and_light(change) -> None:
    pictures = scenes(60)
    again = np.stack([changed(picture, **change) for picture in pictures[:20]])
    twins = find_twins(look_at(np.concatenate([pictures, again])))
    assert (twins.near[60:] == twins.near[:20]).all()
    assert len(np.unique(twins.near)) == 60
    assert len(np.unique(twins.same)) == 80


def test_noise_of_one_colour_is_not_near_other_noise() -> None:
    generator = np.random.default_rng(0)
    pictures = np.clip(np.array([200, 40, 40]) + generator.integers(-40, 41, (300, 12, 10, 3)), 0, 255).astype("uint8")
    assert len(np.unique(find_twins(look_at(pictures)).near)) == 300


def test_likeness_of_pictures_made_alike_is_no_duplicate() -> None:
    """One scene with a small thing in it that differs: near by correlation, as a shirt on one floor and another."""
    scene = scenes(1)[0]
    pictures = np.stack([scene] * 40)
    for place, picture in enumerate(pictures):
        picture[18:30, 18:30] = np.random.default_rng(place).integers(0, 256, (3, 3, 3)).repeat(4, 0).repeat(4, 1)
    look = look_at(pictures)
    assert usual_detail(look.thumbnails) < 0.05
    assert len(np.unique(find_twins(look).near)) == 40


def test_search_finds_what_comparing_all_pairs_finds() -> None:
    """Independent of components and chunks: correlations and differences of all pairs, with numpy alone."""
    pictures = scenes(150, seed=1)
    again = [changed(picture, quality=int(40 + place), light=1 + place / 500) for place, picture in enumerate(pictures)]
    thumbnails = look_at(np.concatenate([pictures, np.stack(again)])).thumbnails
    sums = thumbnails.astype("float64")
    sums = sums[:, 1:, 1:] + sums[:, :-1, 1:] + sums[:, 1:, :-1] + sums[:, :-1, :-1]
    flat = (sums - sums.mean(axis=(1, 2), keepdims=True)).reshape(300, -1)
    steps = [np.diff(sums, axis=axis).reshape(300, -1) for axis in (1, 2)]
    detail = np.concatenate(steps, axis=1)

    def likeness(values: np.ndarray) -> np.ndarray:
        values = values / np.linalg.norm(values, axis=1, keepdims=True)
        return values @ values.T

    near = (1 - likeness(flat) <= FARTHEST) & (1 - likeness(detail) <= usual_detail(thumbnails))
    expected = {(one, other) for one, other in np.argwhere(near).tolist() if one < other}
    assert len(expected) > 100
    assert {(one, other) for one, other in near_pairs(thumbnails)[0].tolist()} == expected
    some = {(one, other) for one, other in expected if one < 7}
    assert {(one, other) for one, other in near_pairs(thumbnails, rows=7)[0].tolist()} == some


def test_blank_pictures_are_equal_but_not_near_each_other() -> None:
    pictures = np.concatenate(
        [np.full((2, 8, 8, 3), 9, "uint8"), np.full((1, 8, 8, 3), 200, "uint8"), scenes(5, size=8)]
    )
    look = look_at(pictures)
    assert look.blank.tolist() == [True] * 3 + [False] * 5
    twins = find_twins(look)
    assert twins.near.tolist() == twins.same.tolist()
    assert len(np.unique(twins.near)) == 7
    found = kinds(blank_findings(look.blank, ids(8), "labelled"))["blank labelled pictures"]
    assert (found.count, found.severity, found.examples) == (3, WARNING, ("p0000", "p0001", "p0002"))


def test_search_compares_fewer_at_once_where_there_are_many(monkeypatch) -> None:
    pictures = scenes(90, size=16)
    thumbnails = np.concatenate([pictures, pictures[::3]])
    pairs, complete = near_pairs(thumbnails)
    heights = []
    confirmed = twins_module._confirmed
    monkeypatch.setattr(twins_module, "_confirmed", lambda *given: heights.append(len(given[1])) or confirmed(*given))
    monkeypatch.setattr(twins_module, "PRODUCTS", 120 * 7)
    again, still = near_pairs(thumbnails)
    assert (len(heights), complete, still) == (18, True, True)  # 120 rows, 7 at a time
    np.testing.assert_array_equal(again, pairs)
    assert len(pairs) >= 30


# --- what twins mean


def planted() -> tuple[np.ndarray, int]:
    """40 labelled pictures, of which 2 repeat and 1 nearly repeats an earlier one, and 12 hidden, 3 of them known."""
    pictures = scenes(49, seed=2)
    labelled = [*pictures[:37], pictures[0], pictures[0], changed(pictures[1])]
    hidden = [*pictures[37:46], pictures[5], changed(pictures[6], scale=0.7), pictures[37]]
    return np.stack([*labelled, *hidden]), 40


def test_duplicates_inside_and_across_are_counted_and_named() -> None:
    pictures, labelled = planted()
    files = np.arange(len(pictures))
    files[38] = files[37] = files[0]
    found = kinds(duplicate_findings(find_twins(look_at(pictures)), ids(len(pictures)), labelled, files))
    equal = found["equal labelled pictures"]
    assert (equal.count, equal.severity) == (2, WARNING)
    assert equal.examples == ("p0000 = p0037 = p0038",)
    assert "2 of them as the same file" in equal.what
    near = found["near duplicates among labelled pictures"]
    assert (near.count, near.examples) == (1, ("p0001 = p0039",))
    assert found["equal hidden pictures"].examples == ("p0040 = p0051",)
    known = found["hidden pictures equal to labelled ones"]
    assert (known.count, known.severity, known.examples) == (1, SERIOUS, ("p0049 = p0005",))
    assert "8.3 %" in known.what
    nearly = found["hidden pictures nearly equal to labelled ones"]
    assert (nearly.count, nearly.examples) == (1, ("p0050 = p0006",))


def test_few_known_hidden_pictures_are_a_warning_only() -> None:
    pictures = scenes(210, seed=3, size=16)
    pictures[150] = pictures[0]
    found = kinds(duplicate_findings(find_twins(look_at(pictures)), ids(210), 100))
    assert found["hidden pictures equal to labelled ones"].severity == WARNING


def test_equal_pictures_with_different_labels_are_found_for_every_head() -> None:
    pictures, labelled = planted()
    twins = find_twins(look_at(pictures))
    labels = np.zeros(labelled, int)
    labels[38] = 1  # picture 38 = 37 = 0
    other = np.zeros(labelled, int)
    other[39] = 1  # nearly 1
    other[[0, 37, 38]] = MISSING, 0, MISSING
    heads = {"first": labels, "second": other}
    found = contradictions(twins, ids(labelled), heads, {"first": ["a", "b"], "second": ["c", "d"]})
    assert [(one.kind.split()[0], one.severity, one.count) for one in found] == [
        ("equal", SERIOUS, 3),
        ("nearly", WARNING, 2),
    ]
    assert found[0].what.startswith("first: 3 pictures are equal")
    assert found[0].examples == ("p0000 (a) = p0038 (b)",)
    assert found[1].examples == ("p0001 (c) = p0039 (d)",)


def test_groups_and_duplicates_across_a_split_are_found() -> None:
    pictures, labelled = planted()
    twins = find_twins(look_at(pictures))
    groups = np.arange(labelled) // 4  # 0 and 37, 38 are in groups 0 and 9
    split = (np.arange(38), np.array([38, 39]))  # cuts group 9; 38 = 0, 39 nearly 1
    found = kinds(straddling(twins, ids(labelled), groups, [split]))
    assert found["duplicates in different groups"].count == 5
    cut = found["groups on both sides of the split"]
    assert (cut.count, cut.examples, cut.severity) == (1, ("9",), SERIOUS)
    assert found["held-out pictures known from training"].count == 2
    assert "100.0 %" in found["held-out pictures known from training"].what
    assert straddling(twins, ids(labelled), None, [(np.arange(36), np.array([36]))]) == []


# --- hints


def table(count: int, **columns: object) -> pd.DataFrame:
    generator = np.random.default_rng(5)
    usual = {"bytes": generator.integers(900, 1100, count), "height": 32, "width": 32, "format": "PNG", "mode": "RGB"}
    return pd.DataFrame({"checksum": np.arange(count)} | usual | columns, index=range(count))


def hints_of(headers: pd.DataFrame, labels: np.ndarray, extensions=None, names=None, **options) -> dict[str, Finding]:
    names = ids(len(labels))[np.random.default_rng(1).permutation(len(labels))] if names is None else names
    features = hint_features(headers, names, extensions or dict.fromkeys(range(len(labels)), ".png"))
    return kinds(hint_findings(features, {"label": labels}, {"label": ["cat", "dog", "owl"]}, **options))


LABELS = np.random.default_rng(0).integers(0, 3, 300)
HINTS = {
    "hint: file size": {"bytes": 1000 + 500 * LABELS + np.random.default_rng(1).integers(0, 100, 300)},
    "hint: picture size": {"width": np.array([30, 32, 34])[LABELS]},
    "hint: file format": {"mode": np.array(["L", "RGB", "P"])[LABELS]},
}


@pytest.mark.parametrize("kind", HINTS)
def test_hint_that_gives_the_label_away_is_serious_and_alone(kind) -> None:
    found = hints_of(table(300, **HINTS[kind]), LABELS)
    assert list(found) == [kind]
    assert found[kind].severity == SERIOUS
    assert "100.0 % of unseen pictures" in found[kind].what


def test_extension_order_and_number_of_the_id_are_hints() -> None:
    ordered = np.sort(LABELS)
    extensions = dict(enumerate(np.array([".png", ".jpg", ".jpeg"])[LABELS].tolist()))
    assert hints_of(table(300), LABELS, extensions)["hint: file format"].severity == SERIOUS
    assert hints_of(table(300), ordered)["hint: position in the table"].severity == WARNING
    mixed = np.random.default_rng(2).permutation(300)
    names = np.array([f"img_{place}.jpg" for place in mixed], object)
    found = hints_of(table(300), np.sort(LABELS)[mixed], names=names)
    assert list(found) == ["hint: number in the id"]


def test_hint_of_one_rare_class_is_serious_although_little_is_gained() -> None:
    rare = np.where(np.arange(300) % 15 == 0, 2, 0)
    found = hints_of(table(300, mode=np.where(rare == 2, "L", "RGB")), rare)["hint: file format"]
    assert (found.severity, found.examples) == (SERIOUS, ("owl",))


def test_features_without_a_hint_are_silent() -> None:
    for seed in range(20):
        generator = np.random.default_rng(seed)
        headers = table(300, bytes=generator.integers(100, 900, 300), width=generator.integers(20, 60, 300))
        assert hints_of(headers, generator.integers(0, 3, 300)) == {}


def test_groups_do_not_fake_a_hint() -> None:
    """30 people with a camera, and a class, of their own each: the size tells the person, who tells the class."""
    generator = np.random.default_rng(3)
    group = np.arange(300) // 10
    labels, size = generator.integers(0, 3, 30)[group], generator.permutation(30)[group] + 100
    headers = table(300, height=size, width=size)
    mixed = generator.permutation(300)
    assert "hint: picture size" in hints_of(headers.iloc[mixed].reset_index(drop=True), labels[mixed])
    found = hints_of(headers.iloc[mixed].reset_index(drop=True), labels[mixed], groups=group[mixed])
    assert "hint: picture size" not in found


def test_missing_labels_are_left_out_of_hints() -> None:
    labels = LABELS.copy()
    labels[::2] = MISSING
    assert "100.0 %" in hints_of(table(300, **HINTS["hint: picture size"]), labels)["hint: picture size"].what


def test_deviations_count_groups_as_one_draw() -> None:
    values = np.array([1.0, 1, 1, 1, -1, -1])
    assert deviations(values) == pytest.approx(2 / np.sqrt(6))
    assert deviations(values, np.array([0, 0, 0, 0, 1, 1])) == pytest.approx(2 / np.sqrt(16 + 4))


# --- shift


def test_area_is_that_of_two_normal_distributions() -> None:
    """Of means d apart and variances of 1 it is Phi(d / sqrt 2)."""
    generator = np.random.default_rng(0)
    one, other = generator.normal(size=3000), generator.normal(1.0, 1.0, size=3000)
    shift = measure_shift(pd.DataFrame({"brightness": one}), pd.DataFrame({"brightness": other}))
    assert shift.auc == pytest.approx(norm.cdf(1 / np.sqrt(2)), abs=0.015)
    assert shift.spread == pytest.approx(np.sqrt(6001 / (12 * 3000 * 3000)))
    assert shift.differences[0][3] == pytest.approx(1, abs=0.1)


def test_darker_hidden_pictures_are_said_and_equal_ones_are_not() -> None:
    pictures = scenes(400, seed=7, size=16)
    one, other = picture_statistics(pictures[:200]), picture_statistics(pictures[200:])
    same = shift_findings(measure_shift(one, other, (pictures[:200], pictures[200:])))
    assert [found.kind for found in same] == ["hidden pictures of the same kind"]
    dark = (pictures[200:] * 0.6).astype("uint8")
    (found,) = shift_findings(measure_shift(one, picture_statistics(dark), (pictures[:200], dark)))
    assert found.severity == SERIOUS
    assert "mean brightness 1" in found.what
    assert "AUC of 1.00" in found.what or "AUC of 0.9" in found.what


def test_sizes_and_formats_of_hidden_pictures_are_compared() -> None:
    pictures = scenes(400, seed=8, size=16)
    parts = pictures[:200], pictures[200:]
    one, other = picture_statistics(parts[0], table(200)), picture_statistics(parts[1], table(200, width=48))
    (found,) = shift_findings(measure_shift(one, other))
    assert "width 32 against 48" in found.what
    formats = np.full(200, "PNG RGB"), np.full(200, "JPEG RGB")
    same = picture_statistics(parts[1], table(200))
    assert shift_findings(measure_shift(one, same))[0].severity == NOTE
    assert shift_findings(measure_shift(one, same, kinds=formats))[0].severity == SERIOUS


def test_groups_that_look_alike_do_not_fake_a_shift() -> None:
    """Every person has lights of his own; hidden persons are others, of the same kind."""
    generator = np.random.default_rng(4)
    light = generator.normal(100, 30, (60, 20)).repeat(10, axis=0) + generator.normal(0, 1, (600, 20))
    table = pd.DataFrame(light, columns=[f"light {number}" for number in range(20)])
    one, other, groups = table[:450], table[450:], np.arange(450) // 10
    assert shift_findings(measure_shift(one, other))[0].severity == SERIOUS  # what would be said without groups
    grouped = measure_shift(one, other, groups=groups, rounds=6)
    assert grouped.chance > 0.6
    assert shift_findings(grouped, grouped=True)[0].severity == NOTE


def test_shift_beyond_what_groups_explain_is_found() -> None:
    generator = np.random.default_rng(4)
    light = generator.normal(100, 30, 60).repeat(10)[:, None] + generator.normal(0, 1, (600, 2))
    light[450:, 0] += 200
    table, groups = pd.DataFrame(light, columns=["brightness", "red"]), np.arange(450) // 10
    shift = measure_shift(table[:450], table[450:], groups=groups, rounds=6)
    assert shift_findings(shift, grouped=True)[0].severity == SERIOUS


@pytest.mark.parametrize("number", [1, 2, 5, 9])
def test_few_groups_leave_shift_hints_and_wrong_labels_open(number) -> None:
    """Neither a crash nor a severity, although two of these have nothing but their groups to tell them by."""
    generator = np.random.default_rng(4)
    groups = np.arange(90) * number // 90
    light = generator.normal(100, 30, (number + 3, 20))
    one = pd.DataFrame(light[groups] + generator.normal(0, 1, (90, 20))).add_prefix("light ")
    other = pd.DataFrame(light[number:].repeat(30, axis=0) + generator.normal(0, 1, (90, 20))).add_prefix("light ")
    (found,) = shift_findings(measure_shift(one, other, groups=groups), grouped=True)
    assert found.severity == NOTE
    assert "too few groups" in found.what
    mixed = generator.permutation(90)
    size, labels = generator.integers(100, 900, number)[groups], groups % 2
    if number > 1:
        (found,) = hints_of(table(90, width=size[mixed]), labels[mixed], groups=groups[mixed]).values()
        assert (found.kind, found.severity) == ("hints cannot be judged", NOTE)
    thumbnails = np.full((90, 16, 16, 3), 50 * labels[:, None, None, None], "uint8")
    (found,) = label_noise_findings(thumbnails, ids(90), {"a": labels}, {"a": list("xy")}, groups)
    assert (found.kind, found.severity) == ("label noise cannot be judged", NOTE)
    assert f"{number} groups are too few" in found.what


def test_most_pictures_hidden_leave_groups_to_learn_from() -> None:
    """With ten groups, and as many pictures hidden as nine of them have, what chance gives can still be measured."""
    values = np.random.default_rng(0).normal(size=(1000, 3))
    table = pd.DataFrame(values, columns=["brightness", "red", "blue"])
    shift = measure_shift(table[:100], table[100:], groups=np.arange(100) // 10, rounds=4)
    assert shift_findings(shift, grouped=True)[0].severity == NOTE


def test_one_large_group_leaves_pictures_to_take_as_hidden() -> None:
    values = np.random.default_rng(0).normal(size=(540, 2))
    table = pd.DataFrame(values, columns=["brightness", "red"])
    groups = np.minimum(np.arange(520), 12)  # twelve of one picture, one of 508
    shift = measure_shift(table[:520], table[520:], groups=groups, rounds=20)
    assert shift_findings(shift, grouped=True)[0].severity == NOTE


def test_hint_in_few_groups_needs_as_rare_a_chance_as_in_many() -> None:
    """Against scipy's t-test of the groups' sums around 0: one in 3.5 million, as five standard errors for many."""
    from scipy.stats import ttest_1samp

    for count in (12, 20):
        values = np.random.default_rng(0).normal(1.0, 0.1, count)
        wider = [np.random.default_rng(0).normal(1.0, spread, count) for spread in np.linspace(0.1, 2, 40)]
        for sums in (values, *wider):
            chance = ttest_1samp(sums, 0, alternative="greater").pvalue
            # The same sums from single pictures, one a group.
            told = deviations(sums, np.arange(count)) >= needed_deviations(np.arange(count))
            assert told == (chance <= norm.sf(5.0))
    groups = np.arange(240) // 20
    labels = np.random.default_rng(1).integers(0, 3, 240)
    assert "hint: picture size" in hints_of(table(240, width=20 + 8 * labels), labels, groups=groups)


# --- label noise


def test_planted_wrong_labels_are_candidates_and_hardly_others() -> None:
    from sklearn.datasets import load_digits

    digits = load_digits()
    pictures = np.repeat(np.round(digits.images * (255 / 16)).astype("uint8")[..., None], 3, axis=3)
    labels = digits.target.copy()
    wrong = np.random.default_rng(0).choice(len(labels), 40, replace=False)
    labels[wrong] = (labels[wrong] + 3) % 10
    names = ids(len(labels))
    classes = {"label": [str(digit) for digit in range(10)]}
    (found,) = label_noise_findings(look_at(pictures).thumbnails, names, {"label": labels}, classes)
    assert found.severity == WARNING
    assert 20 <= found.count <= 44
    # The first five are named.
    first = [f"p{place:04d}" for place in np.sort(wrong)]
    assert sum(example.split()[0] in first for example in found.examples) >= 4


def test_label_noise_is_silent_where_neighbours_tell_nothing() -> None:
    labels = np.random.default_rng(0).integers(0, 3, 200)
    (found,) = label_noise_findings(
        look_at(scenes(200, size=16)).thumbnails, ids(200), {"a": labels}, {"a": list("xyz")}
    )
    assert (found.kind, found.severity) == ("label noise cannot be judged", NOTE)


def test_neighbours_are_others_and_of_other_groups() -> None:
    thumbnails = np.zeros((24, 16, 16, 3), "uint8")
    thumbnails[:12], thumbnails[12:] = 50, 200
    labels = np.arange(24) // 12
    assert neighbour_classes(thumbnails, labels)[0].tolist() == [0] * 10
    classes = neighbour_classes(thumbnails, labels, groups=np.arange(24) // 12)
    assert classes[0].tolist() == [1] * 10


def test_label_noise_of_many_classes_takes_little_memory() -> None:
    thumbnails = np.random.default_rng(0).integers(0, 256, (5000, 16, 16, 3), "uint8")
    classes = {"a": [str(number) for number in range(20_000)]}
    tracemalloc.start()
    (found,) = label_noise_findings(thumbnails, ids(5000), {"a": np.arange(5000) % 4000}, classes)
    assert tracemalloc.get_traced_memory()[1] < 200 * 2**20  # 20,000 x 5,000 votes would be 800 MB
    tracemalloc.stop()
    assert found.severity == NOTE


# --- classes, sizes, modes


def test_classes_are_counted_by_head_without_missing_labels() -> None:
    first = np.array([0] * 90 + [1] * 8 + [2] + [MISSING])
    found = kinds(balance_findings({"a": first}, {"a": ["x", "y", "z"]}))
    assert found["class balance"].severity == WARNING
    assert "the largest, x, has 90.9 % of the labels, the smallest, z, 1 of 99; 1 labels are missing" in (
        found["class balance"].what
    )
    assert found["classes with one picture"].examples == ("z",)
    assert found["rare classes"].examples == ("y (8)",)
    even = balance_findings({"b": np.arange(100) % 2}, {"b": ["x", "y"]})
    assert [finding.severity for finding in even] == [NOTE]


def test_headers_say_size_upright_format_and_mode_of_every_kind(tmp_path) -> None:
    scene = Image.fromarray(scenes(1)[0]).resize((40, 20))
    exif = Image.Exif()
    exif[0x0112] = 6
    scene.save(tmp_path / "turned.jpg", exif=exif)
    scene.convert("CMYK").save(tmp_path / "cmyk.jpg")
    for mode in ("L", "P", "RGBA"):
        scene.convert(mode).save(tmp_path / f"{mode}.png")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG nothing")
    paths = sorted(tmp_path.iterdir())
    headers = read_headers(Encoded.files(paths), np.arange(len(paths)))
    kinds_of = {paths[place].name: tuple(row) for place, row in headers.iloc[:, 2:].iterrows()}
    assert kinds_of == {
        "turned.jpg": (40, 20, "JPEG", "RGB"),
        "cmyk.jpg": (20, 40, "JPEG", "CMYK"),
        "L.png": (20, 40, "PNG", "L"),
        "P.png": (20, 40, "PNG", "P"),
        "RGBA.png": (20, 40, "PNG", "RGBA"),
    }
    assert headers["bytes"].tolist() == [paths[place].stat().st_size for place in headers.index]


def test_odd_shapes_small_pictures_and_modes_are_named() -> None:
    headers = table(100)
    headers.loc[3, ["height", "width"]] = 32, 96
    headers.loc[4, ["height", "width"]] = 8, 8
    headers.loc[5, "mode"] = "L"
    headers.loc[[6, 7], "mode"] = ["CMYK", "P"]
    found = kinds(header_findings(headers, ids(100), "labelled"))
    assert found["odd shapes"].examples == ("p0003 (32x96)",)
    assert found["small pictures"].examples == ("p0004 (8x8)",)
    assert found["grey among coloured pictures"].examples == ("p0005",)
    assert found["unusual colour modes"].examples == ("p0006 (CMYK)", "p0007 (P)")
    assert "98.0 % are 32x32 (height x width), 3 sizes from 8x8 to 32x96" in found["sizes and colour modes"].what
    assert list(kinds(header_findings(table(100), ids(100), "hidden"))) == ["sizes and colour modes"]


def test_findings_are_ordered_by_severity_and_unreadable_files_named() -> None:
    (lost,) = unreadable_findings(["a.png: the file is empty (0 bytes)"])
    assert lost.examples == ("a.png: the file is empty (0 bytes)",)
    note, serious = Finding("a", NOTE, "", 0), Finding("b", SERIOUS, "", 0)
    assert by_severity([note, lost, serious]) == [serious, lost, note]
