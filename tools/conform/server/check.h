/* check.h: what a check of `outboard conform --server` is, and what it can do.
 *
 * Theory of operation. Each check judges one clause of docs/protocol.md on a connection of its own, which is negotiated
 * beforehand unless the check needs CHECK_BARE. It sends what it likes through the raw client, and says what it wants;
 * the first want that is not met ends it (longjmp), with a text that says what was wanted. The report adds what was
 * sent and what came. Descriptors, memory and replies that a check gets from the judge are released by the judge,
 * however it ends. The next check's connection shows that the server is still alive.
 *
 * What a check may do to a server of any device: read anything; write configuration space's COMMAND, BARs and
 * interrupt capabilities, which a reset restores; write mappable memory of BARs, and put it back; map memory, set up
 * interrupts, reset, migrate. It writes no register that it does not know. Devices that it knows (exerciser.h) are made
 * to do DMA and to interrupt. Maps are made below EXERCISER_IOVA or from 256 MiB on. */
#ifndef CONFORM_CHECK_H
#define CONFORM_CHECK_H

#include <errno.h>
#include <setjmp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "../raw/client.h"
#include "../report.h"

struct exerciser;
struct judge;
struct target;

/* What the server has to have; a check is skipped, with the reason, if something is missing. */
enum {
    CHECK_BARE = 1 << 0,    /* no handshake: the check does it */
    NEED_RESET = 1 << 1,    /* DEVICE_RESET */
    NEED_MAPPABLE = 1 << 2, /* a region that clients map, with a descriptor */
    NEED_SPARSE = 1 << 3,   /* of which only parts */
    NEED_MULTI = 1 << 4,    /* write_multiple */
    NEED_TWIN = 1 << 5,     /* twin_socket */
    NEED_IO_FDS = 1 << 6,   /* GET_REGION_IO_FDS with entries */
    NEED_INTX = 1 << 7,     /* the interrupt type has vectors */
    NEED_MSI = 1 << 8,
    NEED_MSIX = 1 << 9,
    NEED_IRQ = 1 << 10,       /* any type that takes eventfds */
    NEED_VECTORS = 1 << 11,   /* one with two vectors or more */
    NEED_DMA = 1 << 12,       /* a device that is known, and does DMA */
    NEED_INTERRUPT = 1 << 13, /* a device that is known, and interrupts */
    NEED_MIGRATION = 1 << 14, /* feature MIGRATION */
    NEED_PRE_COPY = 1 << 15,
    NEED_LOGGING = 1 << 16,      /* features DMA_LOGGING_* */
    NEED_EXTRA_REGION = 1 << 17, /* a region of the device's own, beyond PCI's */
    NEED_EXPRESS = 1 << 18,      /* 4096 bytes of configuration space */
    NEED_SPAWN = 1 << 19,        /* the server process is ours to look at */
};

struct check {
    struct check_name is;
    uint32_t needs;
    void (*run)(struct judge *j);
};

/* The tables end with a check without a name. */
extern const struct check *const server_checks[]; /* ends with NULL */

#define MAX_REGIONS 64

struct region_facts {
    uint32_t flags, argsz; /* argsz: to ask with for everything */
    uint64_t size, offset;
    unsigned areas;
    uint64_t area_offset, area_size; /* of the first that can be mapped; the region itself if all can */
};

/* What the server said of itself when it was first asked. */
struct facts {
    uint32_t max_msg_fds, max_data, max_maps;
    uint64_t pgsizes, page; /* page: the smallest */
    bool multi, twin;
    uint32_t device_flags, regions, irqs;
    struct region_facts region[MAX_REGIONS];
    struct vfio_irq_info irq[16];
    unsigned mappable; /* region index, if has & NEED_MAPPABLE */
    uint16_t vendor, device;
    const struct exerciser *exerciser; /* NULL: the device is not known */
    uint64_t migration_flags;
    uint32_t has; /* NEED_* */
};

struct judge {
    struct ob_raw raw, twin; /* twin: closed after each check, if that has one */
    struct facts facts;
    struct target *target;
    int timeout_ms;
    /* private to the exercisers */
    bool copying;
    uint64_t copy_to;
    uint32_t copy_len, copies;
    void *copy_ring;
    /* private to judge.c */
    const struct check *check;
    jmp_buf out;
    int verdict; /* enum verdict */
    char text[600];
    struct transcript *transcript;
    struct held *held;
};

/* --- Ends -------------------------------------------------------------------------------------------------------- */

void judge_fail(struct judge *j, const char *format, ...) __attribute__((noreturn, format(printf, 2, 3)));
void judge_skip(struct judge *j, const char *format, ...) __attribute__((noreturn, format(printf, 2, 3)));

/* Ends the check unless the condition holds. The text says what was wanted and what is. */
#define want(j, condition, ...)         \
    do {                                \
        if (!(condition))               \
            judge_fail(j, __VA_ARGS__); \
    } while (0)

/* --- Results of the raw client: 0, an errno, or a violation, which ends the check ------------------------------- */

/* 0 or the errno of the refusal. */
int got(struct judge *j, int result, const char *what);
void want_ok(struct judge *j, int result, const char *what);
void want_refused(struct judge *j, int result, const char *what);
void want_error(struct judge *j, int result, int error, const char *what);
/* Refused, or the connection was closed, after which it is made and negotiated anew. */
void want_refused_or_closed(struct judge *j, int result, const char *what);
void want_closed(struct judge *j, const char *what);
/* A round trip works, and nothing comes before its reply. */
void want_alive(struct judge *j, const char *what);

/* --- Connections ------------------------------------------------------------------------------------------------- */

/* A further connection to the server, not negotiated; ends the check if there is none. Close it with
 * ob_raw_close(). */
void judge_open(struct judge *j, struct ob_raw *raw);
/* Closes the check's connection. */
void judge_close(struct judge *j);
/* Closes it and makes another; negotiated with the judge's own capabilities. */
void judge_reconnect(struct judge *j);
/* The same, not negotiated. */
void judge_reconnect_bare(struct judge *j);
/* VERSION 0.0 with that text (NULL: none). The reply's payload, NUL-terminated; 0 or the errno of a refusal. */
int judge_version(struct judge *j, uint16_t major, uint16_t minor, const char *json, struct ob_raw_message **reply);
/* What the judge offers when it is not the negotiation that is judged. */
extern const char judge_capabilities[];

/* --- Messages ---------------------------------------------------------------------------------------------------- */

/* Sends a command and takes its reply, which the judge frees. 0, or the errno of the refusal; a violation ends the
 * check. reply may be NULL. */
int call(struct judge *j, uint16_t command, const void *payload, size_t size, const int *fds, unsigned nfds,
         struct ob_raw_message **reply);
/* Sends it posted. */
void post(struct judge *j, uint16_t command, const void *payload, size_t size, const int *fds, unsigned nfds);
/* Sends bytes as they are. */
void send_bytes(struct judge *j, const void *bytes, size_t size, const int *fds, unsigned nfds);
/* The next message, which the judge frees; on another connection than the check's. */
struct ob_raw_message *receive(struct judge *j, const char *what);
struct ob_raw_message *receive_on(struct judge *j, struct ob_raw *raw, const char *what);
/* Reads a field of a message's payload; ends the check if it is not there. */
uint16_t field16(struct judge *j, const struct ob_raw_message *m, size_t offset);
uint32_t field32(struct judge *j, const struct ob_raw_message *m, size_t offset);
uint64_t field64(struct judge *j, const struct ob_raw_message *m, size_t offset);

/* --- What is released with the check ------------------------------------------------------------------------------ */

int judge_memfd(struct judge *j, uint64_t size);
int judge_eventfd(struct judge *j);
int judge_file(struct judge *j, const char *path); /* opened for reading */
int judge_hold(struct judge *j, int fd);           /* any other; returns it */
/* A pair of connected sockets: `mine` reads the end when the last copy of `theirs`, which is closed by
 * judge_give(), is closed by the server. */
void judge_pair(struct judge *j, int *mine, int *theirs);
void judge_give(struct judge *j, int fd); /* closes one of the judge's descriptors now */
void *judge_mmap(struct judge *j, int fd, uint64_t size, uint64_t offset, int prot);
void *judge_alloc(struct judge *j, size_t size); /* zeroed */
/* How often an eventfd was signalled: now; or waiting for the first (ends the check after the timeout). */
uint64_t signals(struct judge *j, int fd);
void want_signal(struct judge *j, int fd, const char *what);
/* Whether the other side closed its end within the timeout. */
void want_hangup(struct judge *j, int fd, const char *what);

/* --- Things that checks do often ---------------------------------------------------------------------------------- */

/* Needs nothing that was not negotiated. */
uint32_t config_read(struct judge *j, uint32_t offset, uint32_t width);
void config_write(struct judge *j, uint32_t offset, uint32_t width, uint32_t value);
/* Where a capability begins, 0: there is none. */
uint32_t config_capability(struct judge *j, uint8_t id);
/* DEVICE_RESET if there is one. */
void reset(struct judge *j);
/* DMA_MAP and DMA_UNMAP with any fields: 0 or errno. fd -1: none. */
int map(struct judge *j, uint64_t address, uint64_t size, uint32_t prot, int fd, uint64_t offset);
int unmap(struct judge *j, uint64_t address, uint64_t size);

/* --- The rest is for judge.c, survey.c, run.c --------------------------------------------------------------------- */

/* Asks the server for everything in facts: the body of a check of its own, which comes first. */
void survey(struct judge *j);
/* Runs one check; text says why it did not pass. */
enum verdict judge_run(struct judge *j, const struct check *check);
/* Prints the transcript of the last check, each line after `indent`. */
void judge_transcript(struct judge *j, FILE *to, const char *indent);
int judge_init(struct judge *j, struct target *target, int timeout_ms);
void judge_free(struct judge *j);

#endif
