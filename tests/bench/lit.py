"""LitServe round the same engine, batching as its manual has it.

A module of its own, because its workers import it; without postponed annotations, because it looks at them.
"""

import io
from typing import Any

import litserve
import numpy as np
from fastapi import Request
from PIL import Image
from starlette.responses import Response

from engine.runtime import Engine
from service.codec.pixels import Mask, Pixels


class Api(litserve.LitAPI):  # type: ignore[misc, unused-ignore]
    """Decodes, predicts and encodes in one worker."""

    model = ""

    def setup(self, device: str) -> None:
        self.engine = Engine.load(self.model)

    def decode_request(self, request: Request) -> Pixels:
        return np.asarray(Image.open(request["image"].file).convert("RGB"))

    def batch(self, inputs: list[Pixels]) -> list[Pixels]:
        return inputs

    def predict(self, images: list[Pixels]) -> list[Mask]:
        return self.engine.run(images)[0]

    def unbatch(self, masks: list[Mask]) -> list[Mask]:
        return masks

    def encode_response(self, mask: Mask, **_: Any) -> Response:
        out = io.BytesIO()
        Image.fromarray(mask * np.uint8(255)).save(out, "PNG")
        return Response(out.getvalue(), media_type="image/png")


def serve(model: str, port: int) -> None:
    """Until terminated."""
    api = Api(max_batch_size=8, batch_timeout=0.0, api_path="/segment")
    api.model = model
    litserve.LitServer(api, accelerator="cpu").run(port=port, generate_client_file=False, log_level="warning")
