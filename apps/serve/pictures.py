"""Encoded pictures from strangers: which kinds are let in, and how large they may be, seen before they are decoded."""

from apps.serve.settings import Settings


def check_picture(data: bytes, settings: Settings) -> None:
    """Refuse what must not be decoded.

    Raises:
        Refusal: INVALID_ARGUMENT for another format than `settings.formats` or a damaged header, TOO_LARGE for more
            pixels than `settings.max_pixels`.
    """
