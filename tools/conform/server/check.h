/* check.h: what a check of `outboard conform --server` is, and what it can do.
 *
 * Theory of operation. Each check judges one clause of docs/protocol.md on a connection of its own, which is negotiated
 * beforehand unless the check needs CHECK_BARE or CHECK_UNCONNECTED. It sends what it likes through the raw client, and
 * says what it wants; the first want that is not met ends it (longjmp), with a text that says what was wanted. The
 * report adds what was sent and what came. Descriptors, memory and replies that a check gets from the judge are
 * released by the judge, however it ends. The next check's connection shows that the server is still alive.
 *
 * What a check may do to a server of any device: read anything; write configuration space's COMMAND, BARs and
 * interrupt capabilities, which a reset restores; write mappable memory of BARs, and put it back; map memory, set up
 * interrupts, reset, migrate. It writes no register that it does not know. Devices that it knows (exerciser.h) are made
 * to do DMA and to interrupt. Maps are made below EXERCISER_IOVA or from 256 MiB on. */
#ifndef CONFORM_CHECK_H
#define CONFORM_CHECK_H

#include <errno.h>
#include <jansson.h>
#include <setjmp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "../raw/client.h"
#include "../report.h"
#include "../target.h"

struct exerciser;
struct guest;
struct judge;

/* What the server has to have; a check is skipped, with the reason, if something is missing. */
enum {
    CHECK_BARE = 1 << 0,         /* no handshake: the check does it */
    CHECK_UNCONNECTED = 1 << 21, /* not even a connection: the check makes those it needs */
    NEED_RESET = 1 << 1,         /* DEVICE_RESET */
    NEED_MAPPABLE = 1 << 2,      /* a region that clients map, with a descriptor */
    NEED_SPARSE = 1 << 3,        /* of which only parts */
    NEED_MULTI = 1 << 4,         /* write_multiple */
    NEED_TWIN = 1 << 5,          /* twin_socket */
    NEED_IO_FDS = 1 << 6,        /* GET_REGION_IO_FDS with entries */
    NEED_INTX = 1 << 7,          /* the interrupt type has vectors */
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
    NEED_NEXT = 1 << 20,         /* the process that served a client serves the next */
    NEED_MAPS = 1 << 22,         /* DMA_MAP and DMA_UNMAP are looked at: a device without DMA may ignore them */
    NEED_EARLY = 1 << 23,        /* also after one that had no session */
    NEED_MEMORY = 1 << 24,       /* NEED_MAPPABLE, and REGION_READ and REGION_WRITE reach that too */
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
    bool by_message; /* its memory that can be mapped is reached by REGION_READ and REGION_WRITE too, as it should be */
    unsigned areas;
    uint64_t area_offset, area_size; /* of the first that can be mapped; the region itself if all can */
    bool io_fds;                     /* GET_REGION_IO_FDS is answered */
};

/* What the server said of itself when it was first asked. */
struct facts {
    uint32_t max_msg_fds, max_data, max_maps;
    uint64_t pgsizes, page; /* page: the smallest */
    bool multi, twin;
    bool early; /* it executes GET_INFO before VERSION */
    uint32_t device_flags, regions, irqs;
    struct region_facts region[MAX_REGIONS];
    struct vfio_irq_info irq[16];
    uint32_t loopback; /* bit n: SET_IRQS triggers interrupts of type n (irqs.h) */
    unsigned mappable; /* region index, if has & NEED_MAPPABLE */
    uint16_t vendor, device;
    const struct exerciser *exerciser; /* NULL: the device is not known */
    uint64_t migration_flags;
    uint32_t has;                               /* NEED_* */
    enum { UNTRIED, CROSSES, STALLS } crossing; /* guest_needs_crossing() */
};

struct judge {
    struct ob_raw raw, twin; /* twin: closed after each check, if that has one */
    struct facts facts;
    struct target *target; /* the process that `raw` is connected to */
    int timeout_ms;
    uint16_t scratch; /* private to scratch.c */
    /* private to the exercisers, and what they need */
    bool posting; /* bar_write() posts */
    bool copying;
    uint64_t copy_to;
    uint32_t copy_len, copies;
    void *copy_ring;
    int copy_signal; /* 0: none */
    unsigned copy_turns;
    struct guest *guest; /* guest.h */
    struct {
        bool tried, works;
        uint32_t from, to; /* the transition that does not */
        char why[200];
    } plain_way; /* private to migrate.c */
    /* private to judge.c */
    const struct check *check;
    jmp_buf out;
    bool may_close;
    bool ran;    /* the check got as far as that */
    bool harmed; /* the server died of it, or serves nobody any more */
    int verdict; /* enum verdict */
    char text[600];
    struct transcript *transcript;
    struct held *held;
    bool lost; /* the server does not serve the judge any more, and is not ours to start anew */
    struct target *first, second;
    struct ob_raw aside; /* the connection to the one of them that target is not */
};

/* --- Ends -------------------------------------------------------------------------------------------------------- */

void judge_fail(struct judge *j, const char *format, ...) __attribute__((noreturn, format(printf, 2, 3)));
void judge_skip(struct judge *j, const char *format, ...) __attribute__((noreturn, format(printf, 2, 3)));

/* From now on the server may end the connection: that ends the check too, well if the server takes the next one. */
void judge_may_close(struct judge *j);

/* The check goes on, and passes with that advice unless it fails. */
void judge_advise(struct judge *j, const char *format, ...) __attribute__((format(printf, 2, 3)));

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
/* Refused with that errno. Any other is met with advice, unless it is EEXIST, the only one that the protocol's text
 * names. */
void want_error(struct judge *j, int result, int error, const char *what);
/* Refused, and EINVAL is advised, or answered within an argsz that has no room for all. */
void want_no_more(struct judge *j, int result, const struct ob_raw_message *reply, uint32_t argsz, const char *what);
/* Refused, or the connection was closed, after which it is made and negotiated anew. */
void want_refused_or_closed(struct judge *j, int result, const char *what);
void want_closed(struct judge *j, const char *what);
/* A round trip works, and nothing comes before its reply. */
void want_alive(struct judge *j, const char *what);

/* --- Connections ------------------------------------------------------------------------------------------------- */

/* A connection beside the check's, not negotiated, which the judge closes; NULL: the server turned it away. Skips the
 * check if the server program serves one client only. */
struct ob_raw *judge_beside(struct judge *j);
/* Closes the check's connection, once the server has answered what it was sent. */
void judge_close(struct judge *j);
/* Closes it at once, as a client does that dies. */
void judge_abandon(struct judge *j);
/* Closes it in the first way and makes another; negotiated with the judge's own capabilities. */
void judge_reconnect(struct judge *j);
/* The same, not negotiated. */
void judge_reconnect_bare(struct judge *j);
/* A second process of the server's program, for checks that NEED_SPAWN: all goes there from now on, over a negotiated
 * connection of its own. It is started when a check first asks for it, and ended with that check. */
void judge_second(struct judge *j);
/* All goes to the first process again, whose connection is as it was. */
void judge_first(struct judge *j);
/* VERSION 0.0 with that text (NULL: none). The reply's payload, NUL-terminated; 0 or the errno of a refusal. */
int judge_version(struct judge *j, uint16_t major, uint16_t minor, const char *json, struct ob_raw_message **reply);
/* The JSON text of a VERSION reply, which the judge frees; NULL: there is none, or it is none. */
const json_t *judge_json(struct judge *j, const struct ob_raw_message *reply);
/* What the judge offers when it is not the negotiation that is judged. */
extern const char judge_capabilities[];

/* --- Messages ---------------------------------------------------------------------------------------------------- */

/* Sends a command and takes its reply, which the judge frees. 0, or the errno of the refusal; a violation ends the
 * check. reply may be NULL. */
int call(struct judge *j, uint16_t command, const void *payload, size_t size, const int *fds, unsigned nfds,
         struct ob_raw_message **reply);
/* The same, refused, with that errno (0: any). */
void call_refused(struct judge *j, uint16_t command, const void *payload, size_t size, int error);
/* Sends it without waiting for its reply; returns its id. */
uint16_t send_command(struct judge *j, uint16_t command, uint32_t flags, const void *payload, size_t size);
/* Sends it posted. */
void post(struct judge *j, uint16_t command, const void *payload, size_t size, const int *fds, unsigned nfds);
/* Sends bytes as they are. */
void send_bytes(struct judge *j, const void *bytes, size_t size, const int *fds, unsigned nfds);
void send_with_header(struct judge *j, struct ob_raw_header header, const void *payload, size_t size);
/* Until the server has read all bytes that were sent. One that reads nothing before a message is whole conforms too, so
 * this does not wait for long, and does not fail. */
void wait_taken(struct judge *j);
/* The next message, which the judge frees; on another connection than the check's. */
struct ob_raw_message *receive(struct judge *j, const char *what);
struct ob_raw_message *receive_on(struct judge *j, struct ob_raw *raw, const char *what);
/* The judge frees that message. */
struct ob_raw_message *judge_keep(struct judge *j, struct ob_raw_message *m);
/* Reads a field of a message's payload; ends the check if it is not there. */
uint16_t field16(struct judge *j, const struct ob_raw_message *m, size_t offset);
uint32_t field32(struct judge *j, const struct ob_raw_message *m, size_t offset);
uint64_t field64(struct judge *j, const struct ob_raw_message *m, size_t offset);

/* --- What is released with the check ------------------------------------------------------------------------------ */

int judge_hold(struct judge *j, int fd, const char *what); /* a new one; negative: ends the check, with errno */
int judge_memfd(struct judge *j, uint64_t size);
int judge_eventfd(struct judge *j);
int judge_open_file(struct judge *j, const char *path, int flags);
/* A file without a name, of which it can be told whether the server has it open or mapped: want_released() with
 * *watch, once judge_give() has closed the judge's own descriptor. */
int judge_watched_file(struct judge *j, uint64_t size, int *watch);
void want_released(struct judge *j, int watch, const char *what);
/* A pair of connected sockets: `mine` reads the end when the last copy of `theirs`, which is closed by
 * judge_give(), is closed by the server. */
void judge_pair(struct judge *j, int *mine, int *theirs);
void judge_give(struct judge *j, int fd); /* closes one of the judge's descriptors now */
void *judge_mmap(struct judge *j, int fd, uint64_t size, uint64_t offset, int prot);
void *judge_alloc(struct judge *j, size_t size); /* zeroed */
/* How often an eventfd was signalled: now; or waiting for the first (ends the check after the timeout). */
uint64_t signals(struct judge *j, int fd);
uint64_t want_signal(struct judge *j, int fd, const char *what);
/* Whether the other side closed its end within the timeout. */
void want_hangup(struct judge *j, int fd, const char *what);

/* --- The server's process, with NEED_SPAWN ------------------------------------------------------------------------ */

long server_memory(struct judge *j);          /* KiB that it has written to; 0: it has ended */
unsigned server_descriptors(struct judge *j); /* how many are open */
/* Ends the check unless it comes to have at most so many open. */
void want_descriptors(struct judge *j, unsigned most, const char *what);
/* Whether it comes to rest within the time: every thread sleeps, and none uses processor time. */
bool server_rests(struct judge *j, int timeout_ms);
/* Ends the check unless it does. */
void want_rest(struct judge *j, const char *what);
void judge_restart(struct judge *j); /* ends it, and connects to a new one */

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

#endif
