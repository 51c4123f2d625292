"""Pictures for the report: of a class the most typical and the most confident mistakes; what augmentation does."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
MOST_CLASSES = 12  # that have pictures in the report: those with the lowest F1
AUGMENTED = 6  # pictures
SIDE = 72  # of a picture on the page, in pixels


_decode = tf.function(decode_picture)


@dataclass(frozen=True)
class Labelled:
    """The labelled pictures of a run and where they lie, in one order."""

    competition: Competition
    encoded: Encoded

    def show(self, ids: Sequence[str], words: Sequence[str]) -> list[Markup]:
        """Pictures by their ids, as they were before they got the network's size; words are their alternatives."""
        place = {str(one): number for number, one in enumerate(self.competition.train["id"])}
        return [
            as_picture(_decode(tf.constant(self.encoded.read(place[one]))).numpy(), text, SIDE)
            for one, text in zip(ids, words, strict=True)
        ]


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
            captions = [f"{names[answer[place]]} {percent(confidence[place])}" for place in places]
            words = [
                f"{name}, answered {caption}: {validation.ids[place]}"
                for place, caption in zip(places, captions, strict=True)
            ]
            pictures = labelled.show([validation.ids[place] for place in places], words)
            row[part] = list(zip(pictures, captions, strict=True))
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
