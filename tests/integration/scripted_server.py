"""A vfio-user server in a thread, for tests of clients: it says what it is told to, true or not. One client, which may
come and go; it ends with close()."""
import json
import os
import socket
import struct
import threading

VERSION, INFO, REGION_INFO, IRQ_INFO, READ, WRITE, FEATURE = 1, 4, 5, 7, 9, 10, 16
REPLY, ERROR = 1, 0x21
EINVAL, ENOTTY = 22, 25
CONFIG = 7


class ScriptedServer:
    """`regions`: index to (size, bytes); what lies behind the bytes reads as zeroes. `dies_at`: the command at whose
    request the connection is closed. `indexes`: how many regions it says it has. `answers`: command to a function that
    is given the payload and returns that of the reply."""

    def __init__(self, path, regions, dies_at=None, indexes=9, answers=None):
        self.regions, self.dies_at, self.indexes, self.answers = regions, dies_at, indexes, answers or {}
        self.written = []
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(path)
        self.listener.listen()
        self.path = path
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def close(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.thread.join()
        self.listener.close()
        os.unlink(self.path)

    def run(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            with client, client.makefile("rb") as stream:
                try:
                    self.serve(client, stream)
                except (BrokenPipeError, ConnectionResetError):
                    pass  # the client went with requests on their way

    def serve(self, client, stream):
        while len(header := stream.read(16)) == 16:
            number, command, size, flags, _ = struct.unpack("<HHIII", header)
            payload = stream.read(size - 16)
            if command == self.dies_at:
                return
            script = self.answers.get(command)
            answer = script(payload) if script else self.answer(command, payload)
            if flags & 0x10:
                continue
            if isinstance(answer, int):
                client.sendall(struct.pack("<HHIII", number, command, 16, ERROR, answer))
            else:
                client.sendall(struct.pack("<HHIII", number, command, 16 + len(answer), REPLY, 0) + answer)

    def answer(self, command, payload):
        if command == VERSION:
            return payload[:4] + json.dumps({"capabilities": {}}).encode() + b"\0"
        if command == INFO:
            return struct.pack("<IIII", 16, 2, self.indexes, 5)
        if command == REGION_INFO:
            index = struct.unpack_from("<I", payload, 8)[0]
            size = self.regions.get(index, (0, b""))[0]
            return struct.pack("<IIIIQQ", 32, 3 if size else 0, index, 0, size, 0)
        if command == IRQ_INFO:
            return struct.pack("<IIII", 16, 0, struct.unpack_from("<I", payload, 8)[0], 0)
        if command in (READ, WRITE):
            offset, region, count = struct.unpack_from("<QII", payload)
            size, content = self.regions.get(region, (0, b""))
            if offset + count > size:
                return EINVAL
            if command == WRITE:
                self.written.append((region, offset, payload[16:]))
                return payload[:16]
            return payload[:16] + content[offset : offset + count].ljust(count, b"\0")
        return ENOTTY
