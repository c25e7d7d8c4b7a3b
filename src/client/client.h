/* What the parts of the client library share; private to src/client.
 *
 * Theory of operation. One mutex, `lock`, guards everything; it is never held in a system call that waits, nor in a
 * callback. Each message that wants a reply has a slot, and the message's id names it: the low bits are the slot's
 * index, the rest counts its uses, so that a server that answers twice is found out. A call (struct ob_call, or one on
 * the stack of a synchronous function) is one or several messages; it is over when all of them are.
 *
 * One thread at a time reads the socket for all: the leader. Whoever has to wait becomes it if there is none, and else
 * sleeps on a condition variable of its own until its call is over or the leader, on leaving, hands the lead to it. So
 * a thread alone makes two system calls for a round trip, a sendmsg() and a recvmsg() that waits (SO_RCVTIMEO ends it).
 * The leader poll()s first where it has more to wait for than bytes on one socket: room to send, a twin socket, another
 * time-out than the client's.
 *
 * Who finds the socket full keeps replies being read while it waits for room: as the leader if there is none; else it
 * poll()s for room itself, and `kick` tells it when the leader has left with nobody to follow.
 *
 * Nothing waits inside a callback: there messages are queued beyond what the socket takes, up to OB_CLIENT_BACKLOG.
 *
 * A call that expires gives its slots up: they stay taken until their late replies have come, which are thrown away. */
#ifndef OB_CLIENT_CLIENT_H
#define OB_CLIENT_CLIENT_H

#include <outboard/client.h>

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#include "client/out.h"
#include "protocol/message.h"
#include "protocol/version.h"
#include "transport/receiver.h"

#define OB_CLIENT_SLOTS      1024u       /* messages unanswered at a time; a power of two */
#define OB_CLIENT_ABANDONED  256u        /* of those, whose callers gave up: more end the connection */
#define OB_CLIENT_BACKLOG    (16u << 20) /* bytes that may wait to be sent where nobody can wait */
#define OB_CLIENT_NO_TIMEOUT UINT64_MAX

/* What lies in ob_call.lib. */
struct ob_op {
    struct ob_call *next, *prev; /* in client->calls, by deadline, or in client->ended */
    uint64_t deadline;           /* ns of CLOCK_MONOTONIC, or OB_CLIENT_NO_TIMEOUT */
    uint64_t timeout;            /* ns */
    ssize_t result;
    struct ob_waiter *waiter; /* the thread that waits for it */
    uint32_t pending;         /* messages unanswered, and 1 while more are being made */
    uint32_t state;           /* enum ob_op_state */
};
_Static_assert(sizeof(struct ob_op) <= sizeof(struct ob_call_private), "an op lies in its call");

enum ob_op_state { OB_OP_NONE, OB_OP_FLYING, OB_OP_OVER };

static inline struct ob_op *ob_op(struct ob_call *call)
{
    return (struct ob_op *)&call->lib;
}

struct ob_client;
struct ob_slot;

/* Takes what the reply to a slot's message says, under the lock. err: 0 and a checked reply; or what failed, and no
 * reply. A result >= 0 is added to the call's; -EPROTO with a reply ends the connection. Descriptors that it keeps are
 * replaced by -1. When the call expired before, `slot->call` is NULL and the caller's memory is no longer ours: it is
 * then called if `always` is set in the slot. */
typedef ssize_t ob_take_fn(struct ob_client *client, struct ob_slot *slot, int err, const struct ob_message *reply,
                           int *fds);

struct ob_slot {
    struct ob_message request; /* tail is not kept */
    struct ob_call *call;      /* NULL: free, or abandoned */
    ob_take_fn *take;
    void *buf; /* where data goes */
    size_t len;
    bool busy, always;
    uint16_t uses;
    uint32_t next_free;
};

/* A message to be sent, beside its ob_message. */
struct ob_message_plan {
    ob_take_fn *take;
    void *buf;
    size_t len;
    const int *fds; /* sent with it; message->nfds of them */
    bool always;
};

struct ob_waiter {
    struct ob_waiter *next, *prev;
    pthread_cond_t cond;
    bool queued, woken, lead;
    bool room; /* waits for a free slot */
};

/* A socket: what came, and what is to go. */
struct ob_channel {
    struct ob_out out;
    struct ob_receiver receiver;
    uint8_t *bytes; /* received: messages not yet looked at are bytes[start..end) */
    size_t start, end, room;
};

struct ob_map {
    uint64_t iova, size; /* bytes */
    uint64_t serial;     /* which of all maps ever made */
    int prot;
    bool dead; /* given up by its owner: no longer served */
};

struct ob_region {
    struct ob_client_region *info; /* NULL: `error` is why */
    int error;
    atomic_bool mapped; /* memory[] is complete */
    char **memory;      /* for each area; written under the lock until `mapped` */
    int prot;
};

struct ob_client {
    pthread_mutex_t lock;
    struct ob_client_options options;
    struct ob_client_info info;
    struct ob_limits limits;     /* what the server may send us */
    struct ob_capabilities peer; /* what it announced */
    uint64_t long_wait;          /* ns; a recvmsg() may wait instead of a poll(): little less than SO_RCVTIMEO */

    struct ob_channel main, twin; /* twin.out.fd < 0: none */
    bool negotiated;

    struct ob_slot *slots; /* OB_CLIENT_SLOTS */
    uint32_t free_slot;    /* OB_CLIENT_SLOTS: none */
    unsigned free_slots, abandoned;

    struct ob_call *calls, *calls_last;  /* in flight, by deadline */
    struct ob_call *ended, **ended_last; /* over, whose done() is to be called */
    uint64_t now;                        /* the clock when somebody looked last, ns */
    uint64_t events;                     /* calls ended and messages served, ever */

    bool leading;                             /* somebody reads, or has been told to */
    struct ob_waiter *waiters, *waiters_last; /* asleep: those to lead next first */
    unsigned room_waiters, drainers;
    int kick; /* eventfd, see above */

    int poll_fd, timer_fd; /* of ob_client_fd(), or -1 */
    bool poll_out;
    uint64_t poll_deadline;

    int dead; /* 0, or the error that ended the connection */
    char why[256];

    struct ob_region *regions; /* info.regions */
    struct ob_client_irq *irqs;
    int *irq_errors;

    struct ob_map *maps; /* sorted by iova, not overlapping */
    size_t nmaps, maps_room;
    uint64_t map_serial;
    unsigned unmapping; /* DMA_UNMAPs unanswered: their maps are in their slots */
    uint8_t *dma_buf;   /* the leader's: a reply to DMA_READ */
    uint64_t mig_flags; /* VFIO_MIGRATION_*; 0: not asked for yet */

    pid_t pid;
    int pidfd;
};

/* --- calls.c ----------------------------------------------------------------------------------------------------- */

/* A call being made: begin, any number of messages, end. */
struct ob_submit {
    struct ob_client *client;
    struct ob_call *call;
    struct ob_call own; /* of a synchronous call */
    bool sync;
};

/* 0 and the lock is held; or -EDEADLK in a callback that must not, -ENOTCONN, -EPROTO. */
int ob_submit_begin(struct ob_submit *submit, struct ob_client *client, struct ob_call *call);
/* Queues or sends one message; its id is set here. May let go of the lock and wait, not in callbacks: there -EAGAIN. */
int ob_submit_message(struct ob_submit *submit, struct ob_message *message, const struct ob_message_plan *plan);
/* In callbacks: -EAGAIN unless that many messages fit now. */
int ob_submit_room(struct ob_submit *submit, size_t messages);
/* Lets go of the lock. `err` is what a message failed with, or 0. Returns the result of a synchronous call; 0 for
 * others, unless nothing at all was sent: then err. */
ssize_t ob_submit_end(struct ob_submit *submit, ssize_t err);

/* Under the lock: queues or sends a message whose id is set. 0, -ENOMEM, -EMFILE and so on; then nothing was. */
int ob_message_put(struct ob_out *out, const struct ob_message *message, const int *fds);

/* A call of one message. */
ssize_t ob_submit_one(struct ob_client *client, struct ob_call *call, struct ob_message *message,
                      const struct ob_message_plan *plan);

/* All under the lock. */
/* A message of a call is over, with a count or an error; its slot is free afterwards. */
void ob_slot_over(struct ob_client *client, struct ob_slot *slot, ssize_t result);
/* Ends the connection: everything in flight fails with err. The first reason counts. */
__attribute__((format(printf, 3, 4))) void ob_client_die(struct ob_client *client, int err, const char *format, ...);
/* Gives calls up whose time is over. */
void ob_calls_expire(struct ob_client *client);
/* Calls done() of calls that are over; not in a callback, where the caller's caller will. Lets go of the lock. */
void ob_calls_announce(struct ob_client *client);

enum ob_callback { OB_NO_CALLBACK, OB_IN_DONE, OB_IN_DMA };
/* In which callback of this client this thread is. */
enum ob_callback ob_callback_now(const struct ob_client *client);
/* Enters one; returns what to give to ob_callback_leave(). */
struct ob_callback_context {
    const struct ob_client *client;
    enum ob_callback kind;
};
struct ob_callback_context ob_callback_enter(const struct ob_client *client, enum ob_callback kind);
void ob_callback_leave(struct ob_callback_context before);

uint64_t ob_client_clock(void);
uint64_t ob_client_timeout_ns(const struct ob_client *client, int timeout_ms);
static inline uint64_t ob_deadline(uint64_t now, uint64_t timeout)
{
    return timeout > UINT64_MAX - now ? OB_CLIENT_NO_TIMEOUT : now + timeout;
}

/* A refusal is passed on, success is 0: for commands whose replies say nothing. */
ssize_t ob_take_nothing(struct ob_client *client, struct ob_slot *slot, int err, const struct ob_message *reply,
                        int *fds);

/* --- wait.c: under the lock, which they let go of while they wait ------------------------------------------------ */

void ob_wait_call(struct ob_client *client, struct ob_call *call);
/* Waits for a free slot: 0, -ETIMEDOUT, -ENOTCONN. */
int ob_wait_room(struct ob_client *client, uint64_t deadline);
/* Sends all that is queued: 0, -ETIMEDOUT, -ENOTCONN. */
int ob_wait_sent(struct ob_client *client, uint64_t deadline);
void ob_waiter_wake(struct ob_client *client, struct ob_waiter *waiter);
/* ob_calls_announce(), and sees to it that what done() queued leaves; for threads that do not lead. */
void ob_announce_and_send(struct ob_client *client);
/* What ob_client_fd() waits for follows what there is to do. */
void ob_poll_update(struct ob_client *client);
/* Sleeps as others do until there is something to lead, and does one turn of it: see ob_client_run(). */
void ob_wait_turn(struct ob_client *client, uint64_t deadline);

/* --- read.c: for the leader, under the lock ---------------------------------------------------------------------- */

int ob_channel_init(struct ob_channel *channel, int fd, size_t room);
void ob_channel_fini(struct ob_channel *channel);
/* Reads what is there and deals with it. wait: until something is, at most SO_RCVTIMEO. Lets go of the lock. True: the
 * twin socket was read along with the main one. */
bool ob_channel_read(struct ob_client *client, struct ob_channel *channel, bool wait);

/* --- dma.c ------------------------------------------------------------------------------------------------------- */

/* Answers a command of the server's. Lets go of the lock around the callback. */
void ob_dma_serve(struct ob_client *client, struct ob_channel *channel, const uint8_t *bytes, size_t size);

/* --- region.c ---------------------------------------------------------------------------------------------------- */

/* Asks for all regions and interrupts at the beginning. */
int ob_regions_ask(struct ob_client *client);
void ob_regions_free(struct ob_client *client);
/* The region and [offset, offset + len) in it: 0, or why not. */
int ob_region_check(struct ob_client *client, uint32_t index, uint64_t offset, uint64_t len, struct ob_region **region);

/* --- spawn.c ----------------------------------------------------------------------------------------------------- */

void ob_spawn_end(struct ob_client *client);
/* connect.c; `why` gets one line. */
int ob_client_start(int fd, const struct ob_client_options *options, struct ob_client **client, char *why,
                    size_t why_size);
__attribute__((format(printf, 4, 5))) int ob_client_fail(int error, char *why, size_t why_size, const char *format,
                                                         ...);

#endif
