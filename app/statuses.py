"""The exit statuses of the server."""

STARTUP_FAILED = 1
CUT_SHORT = 3
UNWELL = 4
