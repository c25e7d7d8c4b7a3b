"""What rows about REGION_READ, REGION_WRITE and REGION_WRITE_MULTI select by, and do."""

import struct

from mutation import both, poke, posted_write, replies, requests
from proxy import ERROR, NO_REPLY

CONFIG = 7
REGIONS = 14  # of the test device
SIZES = {0: 0x1000, 1: 32, 2: 2 << 20, 4: 0x4000, 5: 0x1000, 7: 4096, 9: 0x2100, 10: 0x2000, 11: 100, 12: 4, 13: 256}

READS, WRITES = requests("REGION_READ"), requests("REGION_WRITE")


def access(m):
    """(offset, region, count) of an access or of what a reply answers; None: it is too short to say."""
    payload = (m.request if m.is_reply and m.request else m).payload
    return struct.unpack_from("<QII", payload) if len(payload) >= 16 else None


def where(test):
    """Accesses whose offset, region and count satisfy `test`."""
    return lambda m: access(m) is not None and test(*access(m))


def region(*indexes):
    return where(lambda offset, index, count: index in indexes)


def config(test):
    """Of configuration space, by offset and count."""
    return where(lambda offset, index, count: index == CONFIG and test(offset, count))


def beyond(offset, index, count):
    return index in SIZES and count > 0 and SIZES[index] <= offset < (1 << 64) - 64


def across(offset, index, count):
    return index in SIZES and offset < SIZES[index] < offset + count


def wraps(offset, index, count):
    return offset + count > 1 << 64 or offset >= (1 << 64) - 64


def head(m):
    """The reply to a write that was done, or the start of that to a read."""
    return m.payload[:16]


def zeroes(m):
    """The reply to a read of zeroes."""
    return m.payload[:16] + bytes(min(access(m)[2], 1 << 20))


def sized(change):
    """A write with other data, as `change` makes it of offset, count and data; its reply is not."""
    def transform(_, m):
        offset, index, count = access(m)
        count, data = change(offset, count, m.payload[16:])
        m.payload = struct.pack("<QII", offset, index, count) + data
        return m
    return transform


def first(most):
    """Only so many bytes of a write are written."""
    return sized(lambda offset, count, data: (min(count, most), data[:most]))


def posted_before(change):
    """Sends another write, posted, before a message: (offset, region, data), as `change` makes it of the message's."""
    def transform(_, m):
        offset, index, count = access(m)
        other, region_index, data = change(offset, index, m.payload[16:])
        payload = struct.pack("<QII", other, region_index, len(data)) + data
        return [m.copy(payload=payload, flags=NO_REPLY, fds=[]), m]
    return transform


def hide(connection, m):
    """Configuration space that is written though it should not be: reads like a write before find its data."""
    where_at = access(m)
    if m.is_reply:
        data = connection.memory.get(where_at)
        if data is not None and len(m.payload) == 16 + len(data):
            m.payload = m.payload[:16] + data
    else:
        connection.memory[where_at] = m.payload[16:]
    return m


# --- Fields of regions -------------------------------------------------------------------------------------------


def _place(m, index, at, size):
    """Where in the payload these bytes of the region are, or None."""
    offset, asked, count = access(m) or (0, -1, 0)
    if m.flags & ERROR or asked != index or at < offset or at + size > offset + count or len(m.payload) < 16 + count:
        return None
    return 16 + at - offset


def read_of(index, at, form):
    """Replies to REGION_READ that hold this field of the region."""
    return both(replies("REGION_READ"), lambda m: _place(m, index, at, struct.calcsize("<" + form)) is not None)


def write_of(index, at, form):
    """Requests of REGION_WRITE that hold it."""
    return both(WRITES, lambda m: _place(m, index, at, struct.calcsize("<" + form)) is not None)


def written(m, index, at, form):
    """The field's value in a message that one of these two selected."""
    return struct.unpack_from("<" + form, m.payload, _place(m, index, at, struct.calcsize("<" + form)))[0]


def alter(index, at, form, value):
    """Another value of the field, in a message that one of these two selected."""
    return lambda connection, m: poke(_place(m, index, at, struct.calcsize("<" + form)), form, value)(connection, m)


def field_write(index, at, form, value):
    """For before() and behind()."""
    return posted_write(index, at, struct.pack("<" + form, value))


def accept_write(_, m):
    """The write is answered and not done."""
    return None if m.flags & NO_REPLY else m.reply(head(m))
