"""Pictures for the report: of a class the most typical and the most confident mistakes; what augmentation does."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import tensorflow as tf
from markupsafe import Markup

from apps.console import percent
from apps.finished_run import Validation
from apps.pages.figures import as_picture
from apps.recipe import Recipe, check_choices
from apps.show import sample_rows
from pipelines.competition import Competition
from pipelines.decode import decode_picture
from pipelines.encoded import Encoded

OF_A_CLASS = 5  # mistakes, and typical ones
MOST_CLASSES = 12  # that have pictures in the report, of all heads together: those with the lowest F1
FEWEST_CLASSES = 3  # of a head
AUGMENTED = 6  # pictures
SIDE = 72  # of a picture on the page, in pixels


_decode = tf.function(decode_picture)


@dataclass(frozen=True)
class Labelled:
    """The labelled pictures of a run and where they lie, in one order.

    Attributes:
        competition: Whose labelled pictures these are.
        encoded: Where they lie.
        lost: Which of those that were asked for cannot be read, and why.
    """

    competition: Competition
    encoded: Encoded
    lost: list[str] = field(default_factory=list)

    @cached_property
    def _places(self) -> dict[str, int]:
        return {str(one): number for number, one in enumerate(self.competition.train["id"])}

    def show(self, name: str, words: str) -> Markup | None:
        """A picture by its id, as it was before it got the network's size, with an alternative; None if it is lost."""
        try:
            pixels = _decode(tf.constant(self.encoded.read(self._places[name]))).numpy()
        except KeyError:
            self.lost.append(f"{name} is not in the data any more")
        except (OSError, ValueError, tf.errors.OpError) as error:
            self.lost.append(f"{name}: {str(error).splitlines()[0]}")
        else:
            return as_picture(pixels, words, SIDE)
        return None


def examples_of(
    head: str, names: Sequence[str], shown: Sequence[str], validation: Validation, labelled: Labelled
) -> list[dict[str, Any]]:
    """By class: pictures that are most surely right, and such that are most surely wrong, with captions.

    Args:
        head: Of which.
        names: Of its classes.
        shown: The classes that are wanted.
        validation: The held-out pictures.
        labelled: Where they lie.
    """
    truth, answer, confidence = validation.truth[head], validation.answer[head], validation.confidence[head]
    rows = []
    for name in shown:
        of_class = truth == names.index(name)
        row: dict[str, Any] = {"name": name, "pictures": int(of_class.sum())}
        for part, chosen in (("typical", of_class & (answer == truth)), ("mistakes", of_class & (answer != truth))):
            places = np.flatnonzero(chosen)
            places = places[np.argsort(-confidence[places], kind="stable")][:OF_A_CLASS]
            row[part] = []
            for place in places:
                caption = f"{names[answer[place]]} {percent(confidence[place])}"
                one = validation.ids[place]
                if (picture := labelled.show(one, f"{name}, answered {caption}: {one}")) is not None:
                    row[part].append((picture, caption))
        rows.append(row)
    return rows


def show_augmentation(labelled: Labelled, recipe: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Rows of a contact sheet: some pictures as they are, after every step, and after all of them."""
    rows = sample_rows(labelled.competition, labelled.encoded, Recipe(**check_choices(recipe)), AUGMENTED)
    return [
        {
            "title": title,
            "pictures": [
                (as_picture(picture, f"{title}: {' '.join(caption.split())}", SIDE), caption.replace("\n", " "))
                for picture, caption in zip(pictures, captions, strict=True)
            ],
        }
        for title, pictures, captions in rows
    ]
