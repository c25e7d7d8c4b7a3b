#!/usr/bin/env python3
"""A device program for the tests of `outboard run`: a vfio-user server that shares no code with the project.

It serves an idle PCI device, one client after the other. Options, by --option KEY=VALUE,...:
  fail=N         end with status N before clients may connect
  never-ready=1  do not say that clients may connect, and wait
  stubborn=1     ignore SIGTERM
  once=1         end when the first client goes
  pid=PATH       write the process id there, once clients may connect
With STANDIN_REPLY=N in the environment, it says in --print-capabilities that a reply may take N ms. With STANDIN_PLAIN
there, it knows --fd and --socket-path only, as the specification asks, and takes its options from STANDIN_OPTIONS.
"""
import json
import os
import signal
import socket
import struct
import sys

CONFIG = bytearray(256)
struct.pack_into("<HHHHBBBB", CONFIG, 0, 0x1234, 0x0B0B, 0, 0, 1, 0, 0, 0xFF)

VERSION, DMA_MAP, DMA_UNMAP, DEVICE_INFO, REGION_INFO = 1, 2, 3, 4, 5
IRQ_INFO, SET_IRQS, READ, WRITE, RESET = 7, 8, 9, 10, 13
NO_REPLY = 0x10
BAR0, CONFIG_REGION = 0, 7
REGIONS = {BAR0: 4096, CONFIG_REGION: 256}


def read_config(offset, count):
    return bytes(CONFIG[offset : offset + count])


def answer(command, payload):
    """The payload of a reply, or an errno."""
    if command == VERSION:
        return struct.pack("<HH", 0, 0) + b'{"capabilities":{"max_msg_fds":8}}\0'
    if command in (DMA_MAP, SET_IRQS, RESET):
        return b""
    if command == DMA_UNMAP:
        return payload
    if command == DEVICE_INFO:
        return struct.pack("<IIII", 16, 3, 9, 5)
    if command == REGION_INFO:
        _, _, index, _ = struct.unpack_from("<IIII", payload)
        size = REGIONS.get(index, 0)
        return struct.pack("<IIIIQQ", 32, 3 if size else 0, index, 0, size, 0)
    if command == IRQ_INFO:
        _, _, index = struct.unpack_from("<III", payload)
        return struct.pack("<IIII", 16, 1, index, 0)
    if command in (READ, WRITE):
        offset, region, count = struct.unpack_from("<QII", payload)
        if command == WRITE:
            return payload[:16]
        data = read_config(offset, count) if region == CONFIG_REGION else bytes(count)
        return payload[:16] + data
    return 95  # EOPNOTSUPP


def receive(client, size):
    data = b""
    while len(data) < size:
        piece, fds, _, _ = socket.recv_fds(client, size - len(data), 16)
        for fd in fds:
            os.close(fd)
        if not piece:
            return None
        data += piece
    return data


def serve(client):
    while header := receive(client, 16):
        message, command, size, flags, _ = struct.unpack("<HHIII", header)
        payload = receive(client, size - 16) if size > 16 else b""
        if payload is None:
            return
        reply = answer(command, payload)
        if flags & NO_REPLY:
            continue
        error = reply if isinstance(reply, int) else 0
        body = b"" if error else reply
        flags = 0x21 if error else 1
        client.sendall(struct.pack("<HHIII", message, command, 16 + len(body), flags, error) + body)


def capabilities():
    features = ["option", "ready-fd", "socket-owner"]
    reply = int(os.environ.get("STANDIN_REPLY", 100))
    print(json.dumps({"type": "other", "features": features, "max-reply-ms": reply}))


def parse(arguments):
    plain = "STANDIN_PLAIN" in os.environ
    given = {"fd": None, "socket-path": None}
    if not plain:
        given |= {"ready-fd": None, "option": "", "socket-owner": None}
    for argument in arguments:
        key, _, value = argument.removeprefix("--").partition("=")
        if key not in given:
            print(f"standin: unknown option {argument}", file=sys.stderr)
            sys.exit(2)
        given[key] = value
    text = os.environ.get("STANDIN_OPTIONS", "") if plain else given["option"]
    return given, dict(item.split("=", 1) for item in text.split(",") if item)


def main():
    if sys.argv[1:] == ["--print-capabilities"] and "STANDIN_PLAIN" not in os.environ:
        capabilities()
        return 0
    given, options = parse(sys.argv[1:])
    if "fail" in options:
        print("standin: fails as it was told", file=sys.stderr)
        return int(options["fail"])
    if "stubborn" in options:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    listener = socket.socket(fileno=int(given["fd"]))
    if "pid" in options:
        with open(options["pid"] + ".new", "w", encoding="ascii") as file:
            file.write(str(os.getpid()))
        os.rename(options["pid"] + ".new", options["pid"])
    if "never-ready" in options:
        signal.pause()
    if given.get("ready-fd"):
        os.write(int(given["ready-fd"]), b"\n")
        os.close(int(given["ready-fd"]))
    while True:
        client, _ = listener.accept()
        try:
            serve(client)
        except ConnectionError:
            pass
        client.close()
        if "once" in options:
            return 0


if __name__ == "__main__":
    sys.exit(main())
