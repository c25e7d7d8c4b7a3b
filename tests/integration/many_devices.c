/* many_devices: two devices in one process, in a loop of the program's own: poll() on their descriptors.
 *
 * many_devices --fd=N --second=M    listening sockets, one for each. Ends with status 0 on SIGTERM. */
#define OB_BUILTIN
#include <outboard/server.h>

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DEVICES 2

struct simple {
    uint32_t data, slow;
};

static const struct ob_field simple_fields[] = {
    OB_FIELD(struct simple, data),
    OB_FIELD(struct simple, slow),
    OB_FIELD_END,
};

/* A read that nobody ever answers. */
static int keep(struct ob_req *req, const struct ob_reg *reg, unsigned index, uint64_t *val)
{
    struct ob_req **kept = ob_scratch(ob_req_dev(req));

    if (*kept != NULL) {
        return -EBUSY;
    }
    *kept = req;
    return OB_LATER;
}

static int quiesce(struct ob_req *req)
{
    struct ob_req **kept = ob_scratch(ob_req_dev(req));

    if (*kept != NULL) {
        ob_reply(*kept, -ECANCELED, 0);
        *kept = NULL;
    }
    return OB_DONE;
}

static const struct ob_reg simple_regs[] = {
    OB_REG32("DATA", 0x00, struct simple, data, .rw = UINT32_MAX),
    OB_REG32("SLOW", 0x04, struct simple, slow, .read = keep),
    OB_REG_END,
};

OB_DEVICE(simple, .summary = "one of two", .pci = { .vendor = 0x1234, .device = 0x0b0d, .class_code = 0xff0000 },
          .irqs = { .intx = true }, .bars[0] = OB_BAR_REGS(0x1000, simple_regs),
          .state = OB_STATE(struct simple, 1, simple_fields), .scratch_size = sizeof(struct ob_req *),
          .ops = { .quiesce = quiesce })

static volatile sig_atomic_t ended;

static void end(int signal)
{
    ended = signal;
}

static int loop(struct ob_dev *devs[DEVICES])
{
    sigset_t none;

    sigemptyset(&none);
    while (!ended) {
        struct pollfd pfds[DEVICES];

        for (int i = 0; i < DEVICES; i++) {
            pfds[i] = (struct pollfd){ .fd = ob_server_fd(devs[i]), .events = POLLIN };
        }
        if (ppoll(pfds, DEVICES, NULL, &none) < 0 && errno != EINTR) {
            return 1;
        }
        for (int i = 0; i < DEVICES && !ended; i++) {
            if ((pfds[i].revents & POLLIN) && ob_server_run(devs[i], 0) < 0) {
                return 1;
            }
        }
    }
    return 0;
}

int main(int argc, char **argv)
{
    struct ob_listen listen = { .owner = (uid_t)-1, .group = (gid_t)-1 };
    struct sigaction action = { .sa_handler = end };
    struct ob_dev *devs[DEVICES];
    int fds[DEVICES] = { -1, -1 }, status;
    sigset_t term;

    for (int i = 1; i < argc; i++) {
        if (strncmp(argv[i], "--fd=", 5) == 0) {
            fds[0] = atoi(argv[i] + 5);
        } else if (strncmp(argv[i], "--second=", 9) == 0) {
            fds[1] = atoi(argv[i] + 9);
        }
    }
    sigemptyset(&term);
    sigaddset(&term, SIGTERM);
    sigprocmask(SIG_BLOCK, &term, NULL); /* it is let in by ppoll() only */
    sigaction(SIGTERM, &action, NULL);
    for (int i = 0; i < DEVICES; i++) {
        listen.fd = fds[i];
        if (ob_dev_new(&ob_class_simple, NULL, NULL, &devs[i]) < 0 || ob_dev_listen(devs[i], &listen) < 0) {
            return 1;
        }
    }
    status = loop(devs);
    for (int i = 0; i < DEVICES; i++) {
        ob_dev_free(devs[i]);
    }
    return status;
}
