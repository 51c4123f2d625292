"""One loaded version of a model, as the protocols see it."""

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from apps.serve.batch import size_of
from apps.serve.batching import Batcher
from apps.serve.decoding import DAMAGED, decode_rgb
from apps.serve.errors import Code, Refusal, invalid
from apps.serve.pictures import check_picture
from apps.serve.runner import Runner
from apps.serve.settings import Settings
from apps.serve.signature import Signature, TensorSpec

DEFAULT = "serving_default"
BYTES = "serving_bytes"  # encoded pictures
DECODE = "decode"  # one encoded picture to pixels of the network's size
SIZED = "serving_sized"  # pixels that have the network's size already
EXPLAIN = "explain"  # heat maps
AT_A_TIME = 64  # pictures of one request that are decoded or wait for a thread

Result = TypeVar("Result")


@dataclass
class Servable:
    """A loaded, warmed-up version.

    Args:
        name: Of the model.
        version: Its number.
        signatures: What can be called.
        metadata: What `assets.extra/kerascnn.json` says, with "classes" by head; empty for other SavedModels.
        runner: Computes it.
        batcher: Joins its requests.
        decoders: Threads where pictures are decoded.
        settings: The limits.
    """

    name: str
    version: int
    signatures: Mapping[str, Signature]
    metadata: Mapping[str, Any]
    runner: Runner
    batcher: Batcher = field(repr=False)
    decoders: Executor = field(repr=False)
    settings: Settings = field(repr=False)

    @property
    def classes(self) -> Mapping[str, Sequence[str]]:
        """The class names of every head; empty where the SavedModel does not tell."""
        return self.metadata.get("classes", {})

    def check_room(self) -> None:
        """Refuse a request whose body is not read yet, where its rows would be refused: it then costs next to nothing.

        Raises:
            Refusal: UNAVAILABLE: the queue is full.
        """
        self.batcher.check_room()

    def signature(self, name: str | None) -> Signature:
        """The signature of that name, `serving_default` for None or "".

        Raises:
            Refusal: There is none.
        """
        name = name or DEFAULT
        if name not in self.signatures:
            raise invalid(f'Serving signature name: "{name}" not found in signature def')
        return self.signatures[name]

    async def predict(
        self, signature: str | None, inputs: Mapping[str, np.ndarray], deadline: float
    ) -> dict[str, np.ndarray]:
        """The outputs of a signature by name.

        Encoded pictures (an array of bytes [N]) are let in wherever pixels are expected: each is checked, decoded and
        resized on its own, so that a bad one fails alone, and only pixels are batched. Pixels that have the network's
        size already pass over the resizing, which would leave them as they are.

        Args:
            signature: Its name; None: `serving_default`.
            inputs: By name, with the dtype and rank that the signature asks for.
            deadline: By the event loop's clock.

        Raises:
            Refusal: The inputs do not fit, the queue is full, the deadline has passed, or the model failed.
        """
        chosen = self.signature(signature)
        validate(chosen, inputs)
        name = chosen.name
        if name == BYTES and DECODE in self.signatures:
            name = SIZED if SIZED in self.signatures else DEFAULT
            ((only, spec),) = self.signatures[name].inputs.items()
            inputs = {only: await self._decode(inputs["image_bytes"], spec, deadline)}
        for key, spec in chosen.inputs.items():
            if spec.is_pictures and inputs[key].dtype == object:
                inputs = {**inputs, key: await self._decode(inputs[key], spec, deadline)}
        if name == DEFAULT and self._has_networks_size(inputs):
            name = SIZED
        if self.signatures[name].batched:
            return await self.batcher.submit(name, inputs, deadline)
        if name == DECODE:
            check_picture(inputs["image_bytes"].item(), self.settings)
        with self.batcher.reserve(1, size_of(inputs)):  # the threads' queue has no bounds of its own
            return await self._in_thread(deadline, self.runner.run, name, inputs)

    def _has_networks_size(self, inputs: Mapping[str, np.ndarray]) -> bool:
        """Whether `serving_sized` takes these inputs of `serving_default`."""
        sized = self.signatures.get(SIZED)
        return (
            sized is not None
            and sized.inputs.keys() == inputs.keys()
            and all(map(fits, sized.inputs.values(), [inputs[name] for name in sized.inputs]))
        )

    async def _in_thread(self, deadline: float, function: Callable[..., Result], *arguments: object) -> Result:
        """What a function returns that runs in a thread of the decoders', until the deadline."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout_at(deadline):
                return await loop.run_in_executor(self.decoders, function, *arguments)
        except TimeoutError:
            raise Refusal(Code.DEADLINE_EXCEEDED, "The request was not answered in time.") from None

    async def _decode(self, pictures: np.ndarray, spec: TensorSpec, deadline: float) -> np.ndarray:
        """Pixels [N, height, width, 3] of N encoded pictures, for that input."""
        if not len(pictures):
            return np.zeros([0, *(side or 1 for side in self._decoded_shape(spec))], spec.dtype)
        parts: list[np.ndarray] = []
        decoded = 0  # bytes

        async def one(data: bytes, place: int | None) -> np.ndarray:
            nonlocal decoded
            pixels = await self._in_thread(deadline, self._decode_one, data, spec, place)
            decoded += pixels.nbytes
            if decoded > max(self.settings.queue_bytes, pixels.nbytes):  # without `decode` nothing makes them smaller
                message = f"The pictures of this request have more than {self.settings.queue_bytes:,} bytes of pixels."
                raise Refusal(Code.TOO_LARGE, message)
            return pixels

        places: Sequence[int | None] = range(len(pictures)) if len(pictures) > 1 else [None]  # for errors
        # Pictures that are being decoded take room in the queue already: what is refused has not been decoded in vain.
        with self.batcher.reserve(len(pictures), sum(map(len, pictures))):
            for start in range(0, len(pictures), AT_A_TIME):
                some = slice(start, start + AT_A_TIME)
                parts += await _all_or_none(map(one, pictures[some], places[some]))
        if len({part.shape for part in parts}) > 1:
            raise invalid("The pictures have different sizes, and this model brings no way of resizing.")
        return parts[0][None] if len(parts) == 1 else np.stack(parts)

    def _decoded_shape(self, spec: TensorSpec) -> tuple[int | None, ...]:
        signature = self.signatures.get(DECODE)
        shape = next(iter(signature.outputs.values())).shape if signature else None
        return shape or (spec.shape or ())[1:]

    def _decode_one(self, data: bytes, spec: TensorSpec, place: int | None) -> np.ndarray:
        try:
            return self._pixels(data, spec)
        except Refusal as refusal:
            if place is None:
                raise
            message = f"Picture {place} (counted from 0): {refusal.message}"
            raise Refusal(refusal.code, message, refusal.retry_after) from refusal

    def _pixels(self, data: bytes, spec: TensorSpec) -> np.ndarray:
        check_picture(data, self.settings)
        if DECODE not in self.signatures:
            return decode_rgb(data, (spec.shape or ())[1:], spec.dtype)
        try:
            pixels = self.runner.run(DECODE, {"image_bytes": np.array(data, object)})["image"]
        except Refusal as refusal:
            if refusal.code is not Code.INVALID_ARGUMENT:
                raise
            raise invalid(DAMAGED) from refusal
        return pixels.astype(spec.dtype, copy=False)


async def _all_or_none(work: Iterable[Coroutine[Any, Any, Result]]) -> list[Result]:
    tasks = [asyncio.create_task(one) for one in work]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:  # those of a request that is refused or given up need not begin
            task.cancel()


def validate(signature: Signature, inputs: Mapping[str, np.ndarray]) -> None:
    """Refuse inputs that do not fit a signature, in words like TensorFlow Serving's.

    Raises:
        Refusal: INVALID_ARGUMENT: names are missing or too many, or a dtype, rank or side is another; where requests
            are joined along the first side, also sides that differ between inputs. Encoded pictures [N] fit pixels.

    Source: TensorFlow Serving, servables/tensorflow/predict_util.cc.
    """
    if inputs.keys() != signature.inputs.keys():
        wanted, received = (", ".join(sorted(names)) for names in (signature.inputs, inputs))
        extra = ", ".join(sorted(inputs.keys() - signature.inputs.keys()))
        missing = ", ".join(sorted(signature.inputs.keys() - inputs.keys()))
        raise invalid(
            f"input size does not match signature: {len(inputs)}!={len(signature.inputs)} len({{{received}}}) != "
            f"len({{{wanted}}}). Sent extra: {{{extra}}}. Missing but required: {{{missing}}}."
        )
    for name, spec in signature.inputs.items():
        value = inputs[name]
        encoded = spec.is_pictures and value.dtype == object and value.ndim == 1
        if not encoded and not fits(spec, value):
            raise invalid(
                f'Input "{name}" of signature "{signature.name}" must be {_kind(spec.dtype, spec.shape)}, '
                f"received {_kind(value.dtype, value.shape)}."
            )
    rows = {name: len(inputs[name]) for name in signature.inputs} if signature.batched else {}
    if len(set(rows.values())) > 1:
        raise invalid(f"Inputs must have the same number of rows, received {rows}.")


def fits(spec: TensorSpec, value: np.ndarray) -> bool:
    """Whether an array has an input's dtype, rank and sides."""
    if value.dtype != spec.dtype:
        return False
    if spec.shape is None:
        return True
    return value.ndim == len(spec.shape) and all(
        wanted in (None, found) for wanted, found in zip(spec.shape, value.shape, strict=True)
    )


def _kind(dtype: np.dtype, shape: tuple[int | None, ...] | None) -> str:
    """As metadata show it: "float32 [-1, 3]"."""
    sides = "of any shape" if shape is None else [-1 if side is None else side for side in shape]
    return f"{'string' if dtype.hasobject else dtype} {sides}"
