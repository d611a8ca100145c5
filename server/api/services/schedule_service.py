"""Serves ScheduleService: decodes and checks requests, calls the stores, encodes answers."""

from __future__ import annotations

from collections.abc import Callable

from mailing.v1 import schedule_service_pb2 as pb
from mailing.v1.schedule_service_pb2_grpc import ScheduleServiceServicer
from server.api.encoding.filters import mask_without_text, read_filter_text
from server.api.encoding.mailings import mailing_message
from server.api.encoding.schedules import changed_parts, schedule_definition_of, schedule_message
from server.api.encoding.sizes import fitted
from server.api.encoding.wellknown import changed_fields, creating_call
from server.api.handlers import Context
from server.domain.mailings import MailingDefinition
from server.domain.pagination import PageRequest
from server.domain.schedules import SCHEDULE_FIELDS, check_schedule
from server.domain.validation import Violations, check_id, page_size, require_id
from server.storage.installation import Installation
from server.storage.mailings import MailingStore
from server.storage.schedules import ScheduleStore


class ScheduleService(ScheduleServiceServicer):
    """Schedules; `check_names` raises for a template that names what is not configured."""

    def __init__(
        self,
        schedules: ScheduleStore,
        mailings: MailingStore,
        installation: Installation,
        check_names: Callable[[MailingDefinition], None],
    ) -> None:
        self._schedules = schedules
        self._mailings = mailings
        self._zones = installation.zones
        self._check_names = check_names

    async def CreateSchedule(self, request: pb.CreateScheduleRequest, context: Context) -> pb.CreateScheduleResponse:
        """Add one schedule."""
        violations = Violations()
        read_filter_text(request.schedule.mailing, "schedule.mailing.")
        definition = schedule_definition_of(request.schedule, violations)
        check_schedule(definition, self._zones, violations)
        call = creating_call("CreateSchedule", request.request_id, request.schedule, violations)
        violations.check()
        self._check_names(definition.mailing)
        made = await self._schedules.create(definition, call, request.validate_only)
        return pb.CreateScheduleResponse(schedule=schedule_message(made))

    async def GetSchedule(self, request: pb.GetScheduleRequest, context: Context) -> pb.GetScheduleResponse:
        """Return one schedule."""
        require_id(request.schedule_id, "schedule_id")
        return pb.GetScheduleResponse(schedule=schedule_message(await self._schedules.get(request.schedule_id)))

    async def UpdateSchedule(self, request: pb.UpdateScheduleRequest, context: Context) -> pb.UpdateScheduleResponse:
        """Change the fields named in the mask."""
        violations = Violations()
        check_id(request.schedule.id, "schedule.id", violations)
        read_filter_text(request.schedule.mailing, "schedule.mailing.")
        mask = mask_without_text(request.update_mask)
        named = changed_fields(request.schedule, mask, SCHEDULE_FIELDS, violations)
        fields = changed_parts(named, violations)
        patch = schedule_definition_of(request.schedule, violations)
        violations.check()
        if not fields.isdisjoint({"mailing", "mailing.endpoint"}):
            self._check_names(patch.mailing)
        schedule = await self._schedules.update(
            request.schedule.id, request.schedule.etag, patch, fields, request.validate_only
        )
        return pb.UpdateScheduleResponse(schedule=schedule_message(schedule))

    async def DeleteSchedule(self, request: pb.DeleteScheduleRequest, context: Context) -> pb.DeleteScheduleResponse:
        """Remove one schedule."""
        require_id(request.schedule_id, "schedule_id")
        await self._schedules.delete(request.schedule_id, request.etag, request.allow_missing)
        return pb.DeleteScheduleResponse()

    async def ListSchedules(self, request: pb.ListSchedulesRequest, context: Context) -> pb.ListSchedulesResponse:
        """Return a page of schedules."""
        violations = Violations()
        page = PageRequest(page_size(request.page_size, violations), request.page_token)
        violations.check()
        schedules, next_token = fitted(await self._schedules.list_page(page), schedule_message)
        return pb.ListSchedulesResponse(schedules=schedules, next_page_token=next_token)

    async def PauseSchedule(self, request: pb.PauseScheduleRequest, context: Context) -> pb.PauseScheduleResponse:
        """Stop making mailings."""
        require_id(request.schedule_id, "schedule_id")
        return pb.PauseScheduleResponse(schedule=schedule_message(await self._schedules.pause(request.schedule_id)))

    async def ResumeSchedule(self, request: pb.ResumeScheduleRequest, context: Context) -> pb.ResumeScheduleResponse:
        """Make mailings again."""
        require_id(request.schedule_id, "schedule_id")
        return pb.ResumeScheduleResponse(schedule=schedule_message(await self._schedules.resume(request.schedule_id)))

    async def TriggerSchedule(self, request: pb.TriggerScheduleRequest, context: Context) -> pb.TriggerScheduleResponse:
        """Make a mailing of a schedule now."""
        violations = Violations()
        check_id(request.schedule_id, "schedule_id", violations)
        body = pb.TriggerScheduleRequest(schedule_id=request.schedule_id)
        call = creating_call("TriggerSchedule", request.request_id, body, violations)
        violations.check()
        self._check_names((await self._schedules.get(request.schedule_id)).definition.mailing)
        made = await self._schedules.trigger(request.schedule_id, call)
        return pb.TriggerScheduleResponse(mailing=mailing_message(await self._mailings.get(made)))
