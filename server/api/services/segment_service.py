"""Serves SegmentService: decodes and checks requests, calls the store, encodes answers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from mailing.v1 import segment_service_pb2 as pb
from mailing.v1.segment_service_pb2_grpc import SegmentServiceServicer
from server.api.encoding.filters import filter_message, filter_of, mask_without_text, read_filter_text
from server.api.encoding.segments import definition_of, segment_message
from server.api.encoding.sizes import fitted
from server.api.encoding.wellknown import changed_fields, creating_call
from server.api.handlers import Context
from server.domain.filter_text import parse_filter, text_of
from server.domain.filters import ClientFilter, check_filter
from server.domain.pagination import PageRequest
from server.domain.segments import SEGMENT_FIELDS, SegmentKey, check_name, check_segment
from server.domain.validation import Violations, check_id, page_size, require_id
from server.storage.database import Database
from server.storage.installation import Installation
from server.storage.segments import SegmentStore


class SegmentService(SegmentServiceServicer):
    """Segments: filters with a name."""

    def __init__(self, database: Database, installation: Installation, hint: Callable[[], None]) -> None:
        self._zones = installation.zones
        self._segments = SegmentStore(database, installation, hint)

    async def CreateSegment(self, request: pb.CreateSegmentRequest, context: Context) -> pb.CreateSegmentResponse:
        """Add one segment."""
        violations = Violations()
        read_filter_text(request.segment, "segment.")
        definition = definition_of(request.segment, violations)
        check_segment(definition, self._zones, violations)
        call = creating_call("CreateSegment", request.request_id, request.segment, violations)
        violations.check()
        return pb.CreateSegmentResponse(segment=segment_message(await self._segments.create(definition, call)))

    async def GetSegment(self, request: pb.GetSegmentRequest, context: Context) -> pb.GetSegmentResponse:
        """Return one segment."""
        violations = Violations()
        key: SegmentKey = request.name or request.segment_id
        if request.name and request.segment_id:
            violations.add("name", "must not be given together with segment_id: one of them names the segment")
        elif request.name:
            check_name(request.name, "name", violations)
        else:
            check_id(request.segment_id, "segment_id", violations)
        violations.check()
        return pb.GetSegmentResponse(segment=segment_message(await self._segments.get(key)))

    async def UpdateSegment(self, request: pb.UpdateSegmentRequest, context: Context) -> pb.UpdateSegmentResponse:
        """Change the fields named in the mask."""
        violations = Violations()
        check_id(request.segment.id, "segment.id", violations)
        read_filter_text(request.segment, "segment.")
        mask = mask_without_text(request.update_mask)
        fields = changed_fields(request.segment, mask, SEGMENT_FIELDS, violations)
        patch = definition_of(request.segment, violations)
        check_segment(patch, self._zones, violations, fields)
        violations.check()
        segment = await self._segments.update(request.segment.id, request.segment.etag, patch, fields)
        return pb.UpdateSegmentResponse(segment=segment_message(segment))

    async def DeleteSegment(self, request: pb.DeleteSegmentRequest, context: Context) -> pb.DeleteSegmentResponse:
        """Remove one segment."""
        require_id(request.segment_id, "segment_id")
        await self._segments.delete(request.segment_id, request.etag, request.allow_missing)
        return pb.DeleteSegmentResponse()

    async def ListSegments(self, request: pb.ListSegmentsRequest, context: Context) -> pb.ListSegmentsResponse:
        """Return a page of segments."""
        violations = Violations()
        page = PageRequest(page_size(request.page_size, violations), request.page_token)
        violations.check()
        segments, next_token = fitted(await self._segments.list_page(page), segment_message)
        return pb.ListSegmentsResponse(segments=segments, next_page_token=next_token)

    async def PreviewSegment(self, request: pb.PreviewSegmentRequest, context: Context) -> pb.PreviewSegmentResponse:
        """Return a filter in both forms, and how many clients match."""
        chosen = await self._previewed(request)
        size = await self._segments.count(chosen)
        text = await asyncio.to_thread(text_of, chosen)  # that of many thousand values takes a second
        return pb.PreviewSegmentResponse(filter=filter_message(chosen), filter_text=text, size=size)

    async def _previewed(self, request: pb.PreviewSegmentRequest) -> ClientFilter:
        """Return the filter that a request has or names. Raise InvalidFields, InvalidFilter, NotFound."""
        violations = Violations()
        chosen = ClientFilter()
        match request.WhichOneof("source"):
            case "segment_id":
                require_id(request.segment_id, "segment_id")
                return await self._segments.filter_of(request.segment_id)
            case "filter":
                chosen = filter_of(request.filter, "filter", violations)
            case "filter_text":
                chosen = parse_filter(request.filter_text, "filter_text")
            case _:
                violations.add("filter", "is required, or else filter_text or segment_id: what to preview")
        check_filter(chosen, self._zones, "filter", violations)
        violations.check()
        return chosen
