"""One servicer for each service of the contract: decodes and checks requests, calls stores, encodes answers."""

from server.api.services.admin_service import AdminService, AdminStores
from server.api.services.client_service import ClientService
from server.api.services.delivery_service import DeliveryService
from server.api.services.mailing_service import MailingService
from server.api.services.message_service import MessageService
from server.api.services.schedule_service import ScheduleService
from server.api.services.segment_service import SegmentService

__all__ = [
    "AdminService",
    "AdminStores",
    "ClientService",
    "DeliveryService",
    "MailingService",
    "MessageService",
    "ScheduleService",
    "SegmentService",
]
