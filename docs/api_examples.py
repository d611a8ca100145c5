"""One call of every method, as the API reference shows it: the JSON of its request, or of several.

Client 27, mailing 1 and message 4294967323 (of mailing 1 to client 27) are the same throughout.
"""

from __future__ import annotations

EXAMPLES: dict[str, str] = {
    "ClientService.CreateClient": '{"client": {"phone": "79161234567", "timezone": "Europe/Moscow", "tag": "news", '
    '"receive_window": {"start": {"hours": 9}, "duration": "43200s"}}}',
    "ClientService.GetClient": '{"client_id": 27}',
    "ClientService.GetClientStory": '{"phone": "79161234567", "page_size": 100}',
    "ClientService.UpdateClient": '{"client": {"id": 27, "operator_code": "916"}}',
    "ClientService.DeleteClient": '{"client_id": 27}',
    "ClientService.ListClients": '{"filter": {"tags": ["news"]}, "receiving_now": true, "page_size": 100}',
    "ClientService.ImportClients": '{"clients": [{"phone": "79161234568", "timezone": "Europe/Moscow"}]} '
    '{"clients": [{"phone": "79161234569", "timezone": "Asia/Omsk"}]}',
    "ClientService.ExportClients": '{"filter": {"timezones": ["Europe/Moscow"]}}',
    "MailingService.CreateMailing": '{"mailing": {"text": "Hello {attributes.name|friend}", '
    '"filter": {"tags": ["news"]}}, "request_id": "5f0c7f8e-1f5b-4c54-9a53-0d6f5f6d9b1e"}',
    "MailingService.GetMailing": '{"mailing_id": 1}',
    "MailingService.UpdateMailing": '{"mailing": {"id": 1, "priority": 5}}',
    "MailingService.DeleteMailing": '{"mailing_id": 1}',
    "MailingService.ListMailings": '{"states": ["STATE_RUNNING", "STATE_PAUSED"]}',
    "MailingService.PreviewMailing": '{"mailing": {"text": "Hello {tag}", "filter": {"tags": ["news"]}}, "samples": 3}',
    "MailingService.SendTestMessage": '{"mailing_id": 1, "phone": "79161234567"}',
    "MailingService.PauseMailing": '{"mailing_id": 1}',
    "MailingService.ResumeMailing": '{"mailing_id": 1}',
    "MailingService.CancelMailing": '{"mailing_id": 1}',
    "MailingService.RetryMailing": '{"mailing_id": 1, "statuses": ["STATUS_FAILED", "STATUS_UNKNOWN"]}',
    "MailingService.GetMailingReport": '{"mailing_id": 1}',
    "MessageService.GetMessage": '{"message_id": 4294967323}',
    "MessageService.ListMessages": '{"mailing_id": 1, "statuses": ["STATUS_FAILED"]}',
    "MessageService.ListAttempts": '{"message_id": 4294967323}',
    "MessageService.ExportMessages": '{"mailing_id": 1, "statuses": ["STATUS_FAILED"]}',
    "DeliveryService.WatchMailing": '{"mailing_id": 1, "min_interval": "1s"}',
    "DeliveryService.WatchMessages": '{"mailing_id": 1, "from_start": true}',
    "ScheduleService.CreateSchedule": '{"schedule": {"mailing": {"text": "Good morning"}, "cron": "0 10 * * 1-5", '
    '"timezone": "Europe/Moscow"}}',
    "ScheduleService.GetSchedule": '{"schedule_id": 1}',
    "ScheduleService.UpdateSchedule": '{"schedule": {"id": 1, "cron": "30 9 * * 1-5"}}',
    "ScheduleService.DeleteSchedule": '{"schedule_id": 1}',
    "ScheduleService.ListSchedules": '{"page_size": 100}',
    "ScheduleService.PauseSchedule": '{"schedule_id": 1}',
    "ScheduleService.ResumeSchedule": '{"schedule_id": 1}',
    "ScheduleService.TriggerSchedule": '{"schedule_id": 1}',
    "SegmentService.CreateSegment": '{"segment": {"name": "gold", "filter": {"tags": ["vip"]}}}',
    "SegmentService.GetSegment": '{"name": "gold"}',
    "SegmentService.UpdateSegment": '{"segment": {"id": 1, "filter": {"tags": ["vip", "news"]}}}',
    "SegmentService.DeleteSegment": '{"segment_id": 1}',
    "SegmentService.ListSegments": '{"page_size": 100}',
    "SegmentService.PreviewSegment": '{"filter": {"tags": ["vip"]}}',
    "AdminService.GetDispatch": "",
    "AdminService.WatchDispatch": '{"min_interval": "1s"}',
    "AdminService.UpdateDispatchSettings": '{"settings": {"poll_max": "2s"}}',
    "AdminService.PauseDispatch": "",
    "AdminService.ResumeDispatch": "",
    "AdminService.ListEndpoints": "",
    "AdminService.ProbeEndpoint": '{"endpoint": "default"}',
    "AdminService.WatchLog": '{"mailing_id": 1}',
    "AdminService.GetServerInfo": "",
    "AdminService.ListWebhooks": "",
    "AdminService.TestWebhook": '{"webhook": "crm"}',
    "AdminService.VerifyLedger": '{"mailing_id": 1}',
}
"""By `Service.Method`; empty where there is nothing to say."""
