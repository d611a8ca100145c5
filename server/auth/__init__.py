"""Who calls: credentials in, a Principal out.

Owns the static tokens, the tokens of an OIDC issuer with the keys behind them, and what a
client's certificate stands for. Knows neither gRPC nor which call needs which scope. A refusal
tells the caller nothing; its cause goes to the log, and never with a credential in it.
"""

from server.auth.authenticator import Authenticator
from server.auth.jwks import KeySet, KeyTiming
from server.auth.watched_file import BadFile

__all__ = ["Authenticator", "BadFile", "KeySet", "KeyTiming"]
