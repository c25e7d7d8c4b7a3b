#!/usr/bin/env python3
"""A proxy between a vfio-user client and a server that passes every message on, and breaks one rule on its way.

    proxy.py [--mutation NAME] (--fd N | --socket-path PATH) -- SERVER [ARG...]
    proxy.py [--mutation NAME] (--fd N | --socket-path PATH) --connect PATH
    proxy.py [--mutation NAME] --connect PATH --client -- CLIENT [ARG...]

It serves clients, any number at a time, at PATH or on a descriptor, and passes the messages of each over a connection
of its own to a server: one that it starts, with --socket-path=PATH appended, or one that listens already. Messages go
on one by one, as they came: each in a segment of its own, its descriptors with its first byte. A twin socket that the
server offers is passed through in the same way, its end too. With --client it starts a client, in whose command {proxy}
becomes the path to connect to, and ends as that does: with its status, or by its signal.

Without a mutation nothing is changed, so that a conforming pair of peers does not notice the proxy. With one, the rows
of mutations_*.py say which messages are changed, dropped, answered here, cut, repeated.
"""

import argparse
import array
import dataclasses
import fcntl
import os
import pathlib
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import termios
import threading
import time
import traceback
from typing import Callable, Optional

HEADER = struct.Struct("<HHIII")
REPLY, NO_REPLY, ERROR = 0x1, 0x10, 0x20

COMMANDS = {
    "VERSION": 1, "DMA_MAP": 2, "DMA_UNMAP": 3, "GET_INFO": 4, "GET_REGION_INFO": 5, "GET_REGION_IO_FDS": 6,
    "GET_IRQ_INFO": 7, "SET_IRQS": 8, "REGION_READ": 9, "REGION_WRITE": 10, "DMA_READ": 11, "DMA_WRITE": 12,
    "DEVICE_RESET": 13, "REGION_WRITE_MULTI": 15, "DEVICE_FEATURE": 16, "MIG_DATA_READ": 17, "MIG_DATA_WRITE": 18,
}
MAX_MESSAGE = 4 << 20
MAX_FDS = 253  # the kernel's
MAX_PENDING = 256 << 10  # bytes that wait for a reader: beyond, no more is read from the other side


@dataclasses.dataclass
class Message:
    """One message on its way. Changing a field changes what is passed on."""

    id: int
    command: int
    flags: int
    error: int
    payload: bytes
    fds: list
    from_client: bool
    twin: bool = False  # it goes over the twin socket
    request: Optional["Message"] = None  # what a reply answers
    size: Optional[int] = None  # of the header, if it is to be wrong
    cuts: tuple = ()  # offsets at which a segment ends
    join: bool = False  # kept back, and sent in one segment with the message behind it
    number: int = 0  # how many of its command and kind came before it on this connection
    ends: bool = False  # it is no message but the end of the twin socket, which its sender closed
    connection: int = 0  # which of the proxy's it is on, from 0; of a client's, which of those that the judge started
    breaks: tuple = ()  # offsets in it at which a read of ours ended
    joined: bool = False  # it came in one read with the message before it
    late_fds: bool = False  # its descriptors did not come with its first byte
    cut_off: Optional[bytes] = None  # all that came of it before the end of the connection
    state: Optional[int] = 2  # of migration, as far as the client could know when this came; None: it cannot

    @property
    def is_reply(self):
        return bool(self.flags & REPLY) or self.request is not None

    def bytes(self):
        if self.cut_off is not None:
            return self.cut_off
        size = HEADER.size + len(self.payload) if self.size is None else self.size
        return HEADER.pack(self.id & 0xffff, self.command & 0xffff, size & 0xffffffff, self.flags, self.error) \
            + self.payload

    def reply(self, payload=b"", error=0, fds=()):
        """The reply that a server might have sent to this request."""
        flags = REPLY | (ERROR if error else 0)
        return Message(self.id, self.command, flags, error, payload, list(fds), not self.from_client, self.twin, self)

    def copy(self, **changes):
        """Another of the same, with descriptors of its own."""
        fds = [os.dup(fd) for fd in self.fds]
        return dataclasses.replace(self, **{"fds": fds, **changes})


class Gone(Exception):
    """One side closed its connection."""


class Stream:
    """One socket: what has arrived, and how to send."""

    def __init__(self, sock):
        self.socket = sock
        self.buffer = b""
        self.breaks = []  # positions in the buffer at which a read ended
        self.fds = []  # (position in the buffer, where the read that brought it began, descriptor)
        self.lost = False  # a header made no sense, or announced too much: what follows is passed on as it is
        self.held = []  # messages that go with the next
        self.pending = []  # (bytes, descriptors) that there was no room for
        self.pending_size = 0
        self.hoards = False  # takes any number of pending bytes
        sock.setblocking(False)

    def receive(self):
        try:
            data, fds, flags, _ = socket.recv_fds(self.socket, 1 << 20, MAX_FDS)
        except BlockingIOError:
            return
        except ConnectionError as error:
            raise Gone from error
        if flags & socket.MSG_CTRUNC:
            raise RuntimeError("descriptors were lost: raise the limit of open files")
        if not data:
            raise Gone
        # Linux ends a read with the segment that carried descriptors, so these came with its last message.
        self.fds += [(len(self.buffer) + len(data) - 1, len(self.buffer), fd) for fd in fds]
        self.buffer += data
        self.breaks.append(len(self.buffer))

    def messages(self, from_client, twin):
        """What is complete. A header that makes no sense, or announces too much, comes with all that is behind it."""
        joined = False
        while len(self.buffer) >= HEADER.size and not self.lost:
            ident, command, size, flags, error = HEADER.unpack_from(self.buffer)
            self.lost = size < HEADER.size or size > MAX_MESSAGE
            if len(self.buffer) < size and not self.lost:
                return
            breaks = tuple(at for at in self.breaks if at < size)
            late = any(0 < start for at, start, _ in self.fds if at < size)
            data, fds = self.take(len(self.buffer) if self.lost else size)
            yield Message(ident, command, flags, error, data[HEADER.size:], fds, from_client, twin,
                          size=size if self.lost else None, breaks=breaks, joined=joined, late_fds=late)
            joined = True

    def take(self, size):
        """The first bytes, and the descriptors that came with them."""
        data, self.buffer = self.buffer[:size], self.buffer[size:]
        fds = [fd for at, _, fd in self.fds if at < size]
        self.fds = [(at - size, start - size, fd) for at, start, fd in self.fds if at >= size]
        self.breaks = [at - size for at in self.breaks if at > size]
        return data, fds

    def rest(self, from_client, twin):
        """What came of a message whose end will not come; None: nothing."""
        if not self.buffer and not self.fds:
            return None
        data, fds = self.take(len(self.buffer))
        ident, command, size, flags, error = HEADER.unpack_from(data + bytes(HEADER.size))
        return Message(ident, command, flags, error, data[HEADER.size:], fds, from_client, twin, size=size,
                       cut_off=data)

    def wait_taken(self):
        """Until the peer has read what was sent: two sends are two segments, but a reader may find them as one."""
        amount = array.array("i", [1])
        for _ in range(2000):
            fcntl.ioctl(self.socket, termios.TIOCOUTQ, amount)
            if amount[0] == 0:
                return
            time.sleep(0.001)  # nothing tells when a peer reads

    def write(self, data, fds):
        """Takes the descriptors over."""
        self.pending.append((data, fds))
        self.pending_size += len(data)
        self.flush()

    def flush(self):
        try:
            while self.pending:
                data, fds = self.pending[0]
                sent = socket.send_fds(self.socket, [data], fds) if fds else self.socket.send(data)
                for fd in fds:
                    os.close(fd)
                self.pending_size -= sent
                self.pending[0] = (data[sent:], [])
                if sent == len(data):
                    self.pending.pop(0)
        except BlockingIOError:
            pass
        except OSError:
            self.drop_pending()  # it has closed: what it sent before is read first

    def drop_pending(self):
        for fd in [fd for _, fds in self.pending for fd in fds]:
            os.close(fd)
        self.pending, self.pending_size = [], 0

    def close(self):
        self.socket.close()
        for _, _, fd in self.fds:
            os.close(fd)
        self.fds = []
        self.drop_pending()

    def send(self, message):
        if message.join:
            self.held.append(message)
            return
        together = self.held + [message]
        self.held = []
        data = b"".join(m.bytes() for m in together)
        fds = [fd for m in together for fd in m.fds]
        start = 0
        for cut in (*sorted(c for c in message.cuts if 0 < c < len(data)), len(data)):
            self.write(data[start:cut], fds)
            fds = []
            if cut < len(data):
                self.wait_taken()
            start = cut


class Connection:
    """A client, its server, and the messages between them. `memory` belongs to the mutation."""

    def __init__(self, proxy, client, server, number):
        self.proxy = proxy
        self.number = number  # Message.connection
        self.client, self.server = Stream(client), Stream(server)
        self.twins = {}
        self.asked = {}  # requests that wait for their reply: (from the client, twin, id, command): [message]
        self.seen = {}
        self.state = 2  # Message.state
        self.memory = {}
        self.kept = []  # descriptors that a mutation keeps, until the connection ends
        self.epoll = select.epoll()
        self.streams = {}
        for stream, other, from_client, twin in ((self.client, self.server, True, False),
                                                 (self.server, self.client, False, False)):
            self.watch(stream, other, from_client, twin)

    def watch(self, stream, other, from_client, twin):
        fd = stream.socket.fileno()
        self.streams[fd] = (stream, other, from_client, twin)
        self.epoll.register(fd, 0)

    def choose_events(self):
        for fd, (stream, other, *_) in self.streams.items():
            room = other.pending_size < MAX_PENDING or other.hoards
            self.epoll.modify(fd, (select.EPOLLIN if room else 0) | (select.EPOLLOUT if stream.pending else 0))

    def interpose_twin(self, m):
        """Puts the proxy between the ends of a twin socket that a reply to VERSION gives: ours replaces the server's."""
        at = m.payload.find(b'"fd_index"')
        if at < 0 or self.twins:
            return
        digits = m.payload[at + 10:].lstrip(b": ")
        index = int(digits[:len(digits) - len(digits.lstrip(b"0123456789"))] or b"-1")
        if not 0 <= index < len(m.fds):
            return
        server = socket.socket(fileno=m.fds[index])
        ours, client = socket.socketpair()
        m.fds[index] = client.detach()
        a, b = Stream(ours), Stream(server)
        self.twins = {True: b, False: a}  # by sender: where its messages go
        self.watch(a, b, True, True)
        self.watch(b, a, False, True)

    def unwatch(self, stream):
        fd = stream.socket.fileno()
        if fd in self.streams:
            self.epoll.unregister(fd)
            del self.streams[fd]

    def end_twin(self):
        for stream in self.twins.values():
            self.unwatch(stream)
            stream.close()
        self.twins = {}

    def remember(self, m):
        key = (m.from_client, m.twin, m.id, m.command)
        kind = (m.from_client, m.command, m.is_reply)
        m.number = self.seen.get(kind, 0)
        self.seen[kind] = m.number + 1
        m.connection = self.number
        if not m.flags & (REPLY | NO_REPLY):
            self.asked.setdefault(key, []).append(m)

    def follow(self, m):
        """A reply that goes to the client may tell it of another state of migration."""
        if m.from_client or not m.is_reply or m.request is None:
            return
        failed, asked = m.flags & ERROR, m.request.payload
        if m.command == COMMANDS["DEVICE_RESET"] and not failed:
            self.state = 2
        if m.command != COMMANDS["DEVICE_FEATURE"] or len(asked) < 8:
            return
        flags = int.from_bytes(asked[4:8], "little")
        if flags == 0x20002 and len(asked) >= 12:  # SET of MIG_DEVICE_STATE
            self.state = None if failed else int.from_bytes(asked[8:12], "little")
        if flags == 0x10002 and not failed and len(m.payload) >= 12:  # GET
            self.state = int.from_bytes(m.payload[8:12], "little")

    def pair(self, m):
        """A message with the reply bit answers the oldest request of its id; some peers' refusals lack the bit."""
        waiting = self.asked.get((not m.from_client, m.twin, m.id, m.command))
        if waiting and m.flags & (REPLY | ERROR):
            m.request = waiting.pop(0)

    def to(self, from_client, twin):
        if twin:
            return self.twins[from_client]
        return self.server if from_client else self.client

    def forward(self, m):
        self.follow(m)
        if m.ends:
            self.end_twin()
        elif self.twins or not m.twin:  # else the other side has closed it meanwhile
            self.to(m.from_client, m.twin).send(m)

    def handle(self, m):
        if not m.ends:
            self.pair(m)
            self.remember(m)
        if m.command == COMMANDS["VERSION"] and m.is_reply and not m.from_client:
            self.interpose_twin(m)
        came, kept = set(m.fds), set()
        m.state = self.state
        for one in self.proxy.mutate(self, m):
            kept.update(one.fds)
            self.forward(one)
        for fd in came - kept:
            os.close(fd)

    def run(self):
        """Until either side closes."""
        try:
            while True:
                self.choose_events()
                for fd, events in self.epoll.poll(0 if self.proxy.spins(self) else None):
                    if fd in self.streams and events & select.EPOLLOUT:
                        self.streams[fd][0].flush()
                    if fd in self.streams and events & ~select.EPOLLOUT:
                        self.read(fd)
        except Gone:
            pass
        finally:
            self.epoll.close()
            for stream in (self.client, self.server, *self.twins.values()):
                stream.close()
            for fd in self.kept:
                os.close(fd)

    def orphan(self, stream):
        """The server has gone, and the client is not told: it waits for answers that do not come."""
        self.unwatch(stream)
        stream.close()
        nobody, self.nobody = socket.socketpair()
        self.server = Stream(nobody)
        self.streams[self.client.socket.fileno()] = (self.client, self.server, True, False)

    def read(self, fd):
        stream, other, from_client, twin = self.streams[fd]
        try:
            stream.receive()
        except Gone:
            if twin:
                self.unwatch(stream)
                self.handle(Message(0, 0, 0, 0, b"", [], from_client, True, ends=True))
                return
            rest = stream.rest(from_client, twin)
            if rest:
                self.handle(rest)
            if not from_client and self.proxy.hides_end():
                self.orphan(stream)
                return
            raise
        for m in stream.messages(from_client, twin):
            self.handle(m)
        if stream.lost:
            other.write(*stream.take(len(stream.buffer)))


class Proxy:
    def __init__(self, mutation):
        self.mutation = mutation
        self.folder = None
        self.server = None
        self.client = None
        self.path = None
        self.memory = {}  # of the mutation, over all connections
        self.connections = []  # that there are now
        self.accepted = 0  # how many there ever were
        self.spins = lambda connection: False  # whether a connection does not sleep

    def start(self, command):
        self.folder = tempfile.TemporaryDirectory(prefix="proxy-")
        self.path = os.path.join(self.folder.name, "server")
        ready, theirs = os.pipe()
        # It dies with the proxy, however that ends.
        command = ["setpriv", "--pdeathsig", "KILL", "--"] + command
        self.server = subprocess.Popen(command + [f"--socket-path={self.path}", f"--ready-fd={theirs}"],
                                       pass_fds=[theirs])
        os.close(theirs)
        if not os.read(ready, 1):
            raise SystemExit(f"proxy: {command[0]} did not start")
        os.close(ready)

    def connect(self):
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(self.path)
        return sock

    def hides_end(self):
        return self.mutation is not None and self.mutation.hides_end

    def run_client(self, command):
        """Starts a client, serves it, and ends as it did."""
        self.folder = tempfile.TemporaryDirectory(prefix="proxy-")
        path = os.path.join(self.folder.name, "client")
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path)
            listener.listen(1)
            command = [word.replace("{proxy}", path) for word in command]
            self.client = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", "--"] + command)
            listener.settimeout(0.05)  # only how soon it is noticed that the client did not come
            while self.client.poll() is None:
                try:
                    self.serve(listener.accept()[0], self.accepted)
                    break
                except TimeoutError:
                    pass
        status = self.client.wait()
        if status < 0:
            signal.signal(-status, signal.SIG_DFL)
            os.kill(os.getpid(), -status)
        return 0 if self.mutation is not None and self.mutation.always_succeeds else status

    def count(self, path):
        """Notes that one more client comes to the judge, which starts another proxy for each."""
        with open(path + ".clients", "a+", encoding="ascii") as file:
            file.seek(0)
            self.accepted = len(file.read())
            file.write(".")

    def crash_client(self):
        self.client.send_signal(signal.SIGSEGV)
        self.client.wait()

    def mutate(self, connection, m):
        if self.mutation is None:
            return [m]
        out = self.mutation.apply(connection, m)
        if out is None:
            return []
        return [out] if isinstance(out, Message) else list(out)

    def serve(self, sock, number):
        """One client, until it or the server closes."""
        try:
            server = self.connect()
        except OSError as error:
            print(f"proxy: cannot connect to the server: {error}", file=sys.stderr)
            sock.close()
            return
        connection = Connection(self, sock, server, number)
        self.connections.append(connection)
        try:
            connection.run()
        except Exception:
            traceback.print_exc()  # test_mutations.py looks for it: a row that is wrong proves nothing
            self.crash()
        finally:
            self.connections.remove(connection)

    def accept(self, listener):
        sock = listener.accept()[0]
        threading.Thread(target=self.serve, args=[sock, self.accepted], daemon=True).start()
        self.accepted += 1

    def crash(self):
        """The server dies, and this process with it."""
        self.stop()
        os._exit(1)

    def stop(self):
        for process in filter(None, (self.server, self.client)):
            process.terminate()
            process.wait()
        if self.folder:
            self.folder.cleanup()


def main():
    parser = argparse.ArgumentParser(description="A vfio-user proxy that breaks one rule.")
    parser.add_argument("--mutation", help="a row of mutations_*.py; none: break nothing")
    parser.add_argument("--connect", metavar="PATH", help="where a server listens already")
    parser.add_argument("--fd", type=int, help="a listening or connected socket")
    parser.add_argument("--socket-path", help="where to listen")
    parser.add_argument("--client", action="store_true", help="the program is a client, and is started")
    parser.add_argument("program", nargs="*", help="the server's or client's program and its arguments")
    arguments = parser.parse_args()
    if arguments.client:
        if not arguments.connect or not arguments.program:
            parser.error("--client takes --connect PATH and a client program")
    elif (arguments.fd is None) == (arguments.socket_path is None):
        parser.error("give one of --fd and --socket-path")
    elif bool(arguments.connect) == bool(arguments.program):
        parser.error("give --connect PATH or a server program")
    mutation = None
    if arguments.mutation:
        sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
        sys.modules["proxy"] = sys.modules["__main__"]  # the rows' classes are these
        import mutation as rows
        mutation = rows.find(arguments.mutation)
        if mutation is None:
            parser.error(f"there is no mutation {arguments.mutation}")

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    proxy = Proxy(mutation)
    try:
        if arguments.connect:
            proxy.path = arguments.connect
        else:
            proxy.start(arguments.program)
        if arguments.client:
            proxy.count(arguments.connect)
            sys.exit(proxy.run_client(arguments.program))
        if arguments.fd is None:
            listener = socket.socket(socket.AF_UNIX)
            listener.bind(arguments.socket_path)
            listener.listen(8)
        else:
            listener = socket.socket(fileno=arguments.fd)
            if not listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                proxy.serve(listener, 0)
                return
        while True:
            proxy.accept(listener)
    finally:
        proxy.stop()


if __name__ == "__main__":
    main()
