"""For rows about clients: what the judge answers if nothing is wrong, and what client_driver has asked for."""

import struct

ID = 0x6d6f6465  # at 0 of region 0
GOOD_VERSION = (struct.pack("<HH", 0, 0) + b'{"capabilities":{"max_msg_fds":16,"max_data_xfer_size":1048576,'
                b'"max_dma_maps":65535,"pgsizes":4096,"write_multiple":true}}\0')
# Of region 2, with its two areas.
GOOD_REGION = struct.pack("<IIIIQQ HHI II QQQQ", 80, 0xf, 2, 32, 65536, 0, 1, 1, 0, 2, 0, 0x1000, 0x2000, 0x8000,
                          0x1000)


def good_read(request):
    """The payload of the reply to client_driver's first REGION_READ of a register, which is of the device's number."""
    return request.payload[:16] + struct.pack("<I", ID)


def good_data(size):
    """The first bytes of the device's state."""
    return bytes((i * 7 + (i >> 8)) & 0xff for i in range(size))


def outstanding(connection, ident=None):
    """The client's commands that wait for their replies; those with an id."""
    return [m for (from_client, _, number, _), waiting in connection.asked.items() for m in waiting
            if from_client and ident in (None, number)]


def together(_, m):
    """client_driver asks for all ten regions at once: they reach the judge so, too."""
    m.join = m.command == 5 and m.number < 9
    return m
