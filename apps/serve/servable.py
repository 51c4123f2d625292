"""One loaded version of a model, as the protocols see it."""

import asyncio
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from apps.serve.batching import Batcher
from apps.serve.errors import Refusal, invalid
from apps.serve.pictures import check_picture
from apps.serve.runner import Runner
from apps.serve.settings import Settings
from apps.serve.signature import Signature

DEFAULT = "serving_default"
BYTES = "serving_bytes"  # encoded pictures
DECODE = "decode"  # one encoded picture to pixels of the network's size
SIZED = "serving_sized"  # pixels that have the network's size already
EXPLAIN = "explain"  # heat maps


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

        Encoded pictures (an array of bytes) are let in wherever pixels are expected: each is checked, decoded and
        resized on its own, so that a bad one fails alone, and only pixels are batched.

        Args:
            signature: Its name; None: `serving_default`.
            inputs: By name, with the dtype and rank that the signature asks for.
            deadline: By the event loop's clock.

        Raises:
            Refusal: The inputs do not fit, the queue is full, the deadline has passed, or the model failed.
        """
        chosen = self.signature(signature)
        if chosen.name == BYTES and DECODE in self.signatures:
            pixels = await self._decode(inputs["image_bytes"])
            return await self.batcher.submit(self._sized(), {"image": pixels}, deadline)
        for name, spec in chosen.inputs.items():
            if spec.is_pictures and inputs[name].dtype == object:
                inputs = {**inputs, name: await self._decode(inputs[name])}
        if chosen.batched:
            return await self.batcher.submit(chosen.name, inputs, deadline)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self.decoders, self.runner.run, chosen.name, inputs)

    def _sized(self) -> str:
        return SIZED if SIZED in self.signatures else DEFAULT

    async def _decode(self, pictures: np.ndarray) -> np.ndarray:
        """Pixels uint8 [N, height, width, 3] of N encoded pictures."""
        loop = asyncio.get_running_loop()
        parts = [loop.run_in_executor(self.decoders, self._decode_one, data) for data in pictures]
        return np.stack(await asyncio.gather(*parts))

    def _decode_one(self, data: bytes) -> np.ndarray:
        check_picture(data, self.settings)
        try:
            return self.runner.run(DECODE, {"image_bytes": np.array(data, object)})["image"]
        except Refusal as refusal:
            raise invalid("The picture cannot be decoded: its data are damaged or cut short.") from refusal
