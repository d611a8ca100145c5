"""Makes the mailings of schedules, at their time."""

from server.schedules.maker import MailingMaker

__all__ = ["MailingMaker"]
