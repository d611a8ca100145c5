"""Sends the daily report by e-mail, once over all replicas."""

from server.reports.daily_mail import DailyMail, MailPlan, send_now
from server.reports.smtp import MailRefused, MailServer

__all__ = ["DailyMail", "MailPlan", "MailRefused", "MailServer", "send_now"]
