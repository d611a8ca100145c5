"""Previews → their messages."""

from __future__ import annotations

from mailing.v1.mailing_service_pb2 import PreviewMailingResponse
from mailing.v1.message_pb2 import Message
from server.api.encoding.masking import shown_phone, shown_text
from server.api.encoding.wellknown import timestamp
from server.domain.previews import Preview, Sample

_Sample = PreviewMailingResponse.Sample


def preview_message(preview: Preview) -> PreviewMailingResponse:
    """Return a preview as its message."""
    return PreviewMailingResponse(
        audience_size=preview.audience.size,
        exclusions=[
            PreviewMailingResponse.Exclusion(reason=Message.Reason.ValueType(reason), count=count)
            for reason, count in preview.audience.excluded.items()
        ],
        samples=map(_sample_message, preview.samples),
        sendable_before_end=preview.sendable,
        estimated_finish_time=timestamp(preview.finish_at),
    )


def _sample_message(sample: Sample) -> PreviewMailingResponse.Sample:
    return _Sample(
        client_id=sample.client_id,
        phone=shown_phone(sample.phone),
        text=shown_text(sample.text, sample.phone),
        characters=sample.length.characters,
        sms_segments=sample.length.segments,
        sms_encoding=_Sample.Encoding.ValueType(sample.length.encoding),
        due_time=timestamp(sample.due_at),
    )
