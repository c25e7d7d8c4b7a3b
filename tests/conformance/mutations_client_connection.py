"""VU-CON: clients that mishandle descriptors, splits, commands at odd moments, ends, and late replies."""

import os

from client_good import outstanding, together
from mutation import (any_of, both, client_row, close, crash_client, extra_descriptor, no_descriptors, nothing,
                      refused, replies, requests, server_requests, then)

client_row("client-needless-descriptor", requests("GET_INFO"), extra_descriptor, "descriptors")


def leak(connection, m):
    connection.memory.setdefault("leaked", []).extend(os.dup(fd) for fd in m.fds)
    return m


client_row("client-leaks-descriptors", replies("REGION_READ", "DMA_MAP", "GET_REGION_IO_FDS"), leak,
           "descriptor-closed-read", "descriptor-closed-map", "descriptor-closed-many")
client_row("client-leaks-with-refusal", both(replies(), refused), then(leak, no_descriptors),
           "descriptor-closed-refusal")

client_row("client-wants-whole-replies", both(replies(), lambda m: m.breaks), close, "split-header",
           "split-payload", "split-bytes")


# In the baseline replies may meet by chance.
client_row("client-takes-one-of-a-segment",
           any_of(requests("GET_REGION_INFO"),
                  both(replies("GET_REGION_INFO"), lambda m: m.joined and m.connection > 0)),
           lambda c, m: close(c, m) if m.is_reply else together(c, m), "split-joined")


def when_idle(connection, m):
    """Serves the server's commands when no command of the client's own waits for its reply."""
    kept = connection.memory.setdefault("kept", [])
    if m.is_reply:
        released, kept[:] = [m] + kept, []
        return released
    if outstanding(connection):
        kept.append(m)
        return None
    return m


client_row("client-serves-when-idle", any_of(server_requests(), replies()), when_idle, "command-in-call",
           "commands-in-call", "reset-slow", "unmap-in-use", timeout=1000)
client_row("client-serves-twin-when-idle", any_of(server_requests(), replies()), when_idle, "twin-in-call",
           timeout=1000)

ENDS = ("end-outstanding", "end-between", "end-in-header", "end-in-payload", "end-anywhere")
client_row("client-misses-the-end", nothing, None, *ENDS, hides_end=True, timeout=1000)
client_row("client-always-content", nothing, None, *ENDS, always_succeeds=True)


def close_if_late(connection, m):
    return close(connection, m) if outstanding(connection) else m


client_row("client-dies-of-late-reply", replies("DEVICE_RESET", "DEVICE_FEATURE"), close_if_late, "late-header",
           "late-payload")

client_row("client-crashes-on-size", lambda m: m.size is not None, crash_client, "nonsense-size-zero",
           "nonsense-size-small", "nonsense-size-huge", "nonsense-command-huge")
client_row("client-crashes-on-type", lambda m: m.flags == 2, crash_client, "nonsense-type")
client_row("client-crashes-on-command", both(server_requests(), lambda m: m.command not in (11, 12)), crash_client,
           "nonsense-command", "nonsense-direction")
client_row("client-crashes-on-short-dma", both(server_requests("DMA_READ", "DMA_WRITE"), lambda m: len(m.payload) < 16),
           crash_client, "nonsense-short-dma-read", "nonsense-short-dma-write")
client_row("client-crashes-at-once", replies("GET_INFO"), crash_client, "baseline")
