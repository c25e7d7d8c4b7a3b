/* The serial ports of guest-tool. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

#include "guest-tool.h"

/* `receive` says "more" each time it has got so many bytes. */
#define CHUNK (64 * 1024)

int open_tty(const char *path, const char *flow)
{
    int fd = open(path, O_RDWR | O_NOCTTY | O_CLOEXEC);
    struct termios settings;

    if (fd < 0 || tcgetattr(fd, &settings) != 0)
        die("cannot open %s as a terminal: %s", path, strerror(errno));
    cfmakeraw(&settings);
    settings.c_cflag &= ~(tcflag_t)CRTSCTS;
    settings.c_cflag |= CLOCAL | CREAD;
    if (strcmp(flow, "rtscts") == 0)
        settings.c_cflag |= CRTSCTS;
    else if (strcmp(flow, "none") != 0)
        die("flow control is rtscts or none, not %s", flow);
    settings.c_cc[VMIN] = 1;
    settings.c_cc[VTIME] = 0;
    cfsetspeed(&settings, B115200);
    if (tcsetattr(fd, TCSANOW, &settings) != 0)
        die("cannot set up %s: %s", path, strerror(errno));
    return fd;
}

static void await_tty(int fd, short events, uint64_t left)
{
    struct pollfd entry = { .fd = fd, .events = events };
    int ready = poll(&entry, 1, TIMEOUT_SECONDS * 1000);

    if (ready < 0)
        die("poll: %s", strerror(errno));
    if (ready == 0)
        die("no progress in %d s with %" PRIu64 " bytes left", TIMEOUT_SECONDS, left);
}

int serial_send(int fd, uint64_t bytes, uint32_t state)
{
    uint8_t buffer[4096];
    uint32_t crc = 0;

    while (bytes > 0) {
        size_t length = bytes < sizeof(buffer) ? (size_t)bytes : sizeof(buffer);
        size_t sent = 0;

        for (size_t i = 0; i < length; i++)
            buffer[i] = next_random(&state);
        crc = crc32_of(crc, buffer, length);
        while (sent < length) {
            ssize_t done;

            await_tty(fd, POLLOUT, bytes - sent);
            done = write(fd, buffer + sent, length - sent);
            if (done < 0)
                die("write: %s", strerror(errno));
            sent += (size_t)done;
        }
        bytes -= length;
    }
    if (tcdrain(fd) != 0)
        die("tcdrain: %s", strerror(errno));
    printf("%#" PRIx32 "\n", crc);
    return 0;
}

int serial_receive(int fd, uint64_t bytes, uint32_t state)
{
    uint8_t buffer[4096];
    uint32_t crc = 0;
    uint64_t received = 0, first_wrong = UINT64_MAX;

    puts("ready"); /* the port is open and raw: the sender may start */
    fflush(stdout);
    while (received < bytes) {
        uint64_t left = bytes - received;
        ssize_t done;

        await_tty(fd, POLLIN, left);
        done = read(fd, buffer, left < sizeof(buffer) ? (size_t)left : sizeof(buffer));
        if (done <= 0)
            die("read: %s", done < 0 ? strerror(errno) : "end of file");
        crc = crc32_of(crc, buffer, (size_t)done);
        for (ssize_t i = 0; i < done; i++)
            if (buffer[i] != next_random(&state) && first_wrong == UINT64_MAX)
                first_wrong = received + (uint64_t)i;
        if ((received + (uint64_t)done) / CHUNK != received / CHUNK) {
            puts("more");
            fflush(stdout);
        }
        received += (uint64_t)done;
    }
    printf("%#" PRIx32 "\n", crc);
    if (first_wrong != UINT64_MAX)
        die("byte %" PRIu64 " is wrong", first_wrong);
    return 0;
}
