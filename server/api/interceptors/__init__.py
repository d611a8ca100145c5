"""What every call passes through, one concern a file; `server.api.server` names them in order."""
